"""Profiles: every published value of a run, read from YAML and checked before anything starts."""

import ast
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import get_args, get_origin

import nbformat
import yaml

from .layout import METHODS, OPTIMIZERS, PRECISIONS
from .recipe import Recipe

DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class Profile:
    """All values of a run; each is also the parameter of that name in the notebooks that declare it.

    Units and meanings stand beside the values in ``config/*.yaml``.
    """

    dataset: str
    train_images: int
    test_images: int
    device: str
    n_groups: int
    groups_per_shard: int
    leaves: int
    widths: list[int]
    optimizer: str
    learning_rate: float
    momentum: float
    batch_size: int
    epochs: int
    weight_decay: float
    crop_padding: int
    flip: bool
    precision: str
    l1_strengths: list[float]
    l2_strengths: list[float]
    regularised_models: int
    regularised_groups: int
    merge_many_sizes: list[int]
    merge_many_limits: list[int]
    merge_many_sets: int
    matching_seed: int
    attacked_methods: list[str]
    attacked_images: int
    epsilons: list[float]
    noise_magnitudes: list[float]
    noise_draws: int
    bounded_images: int
    radii: list[float]
    ablation_pairs: int
    n_lambdas: int
    evaluated_images: int

    def __post_init__(self):
        for field in fields(self):
            object.__setattr__(self, field.name, _typed(field.name, field.type, getattr(self, field.name)))
        self._check_choices()
        self._check_ranges()

    def _check_choices(self):
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if not self.attacked_methods or set(self.attacked_methods) - set(METHODS):
            raise ValueError(f"attacked_methods must be one or more of {METHODS}, got {self.attacked_methods}")
        if missing := {"unmerged", "tree"} - set(self.attacked_methods):
            raise ValueError(f"attacked_methods lacks {sorted(missing)}, which every comparison needs")
        if not DEVICE.fullmatch(self.device):
            raise ValueError(f"device must be cpu, cuda or cuda:<number>, got {self.device!r}")

    def _check_ranges(self):
        if self.leaves < 2 or self.leaves & (self.leaves - 1):
            raise ValueError(f"a tree needs 2**k leaves, got leaves={self.leaves}")
        for name in (
            "n_groups",
            "groups_per_shard",
            "regularised_models",
            "merge_many_sets",
            "attacked_images",
            "noise_draws",
            "bounded_images",
            "ablation_pairs",
            "evaluated_images",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("train_images", "test_images", "regularised_groups", "matching_seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must be positive, got {self.widths}")
        if self.n_lambdas < 2:
            raise ValueError(f"n_lambdas must be at least 2 (both ends), got {self.n_lambdas}")
        pairs = self.leaves // 2 + (self.leaves - 1) * (self.leaves - 2) // 2  # see ablations.pairs_of
        if self.ablation_pairs > pairs:
            raise ValueError(f"ablation_pairs={self.ablation_pairs} exceeds the {pairs} of leaves={self.leaves}")
        if self.regularised_models > self.leaves:
            raise ValueError(f"regularised_models={self.regularised_models} exceeds leaves={self.leaves}")
        for size in self.merge_many_sizes:
            if not 2 <= size <= self.leaves:
                raise ValueError(f"merge_many_sizes must lie in [2, leaves={self.leaves}], got {size}")
        _check_increasing("merge_many_sizes", self.merge_many_sizes, 2, self.leaves)
        _check_increasing("merge_many_limits", self.merge_many_limits, 1, 10_000)
        _check_increasing("epsilons", self.epsilons, 0, 1)
        _check_increasing("noise_magnitudes", self.noise_magnitudes, 0, 1)
        if self.noise_magnitudes[0] != 0:
            raise ValueError(f"noise_magnitudes must start at 0, to compare with, got {self.noise_magnitudes}")
        _check_increasing("radii", self.radii, 1e-12, 1e6)
        for name in ("l1_strengths", "l2_strengths"):
            _check_increasing(name, getattr(self, name), 1e-12, 1e6, may_be_empty=True)
        Recipe(
            self.optimizer,
            self.learning_rate,
            self.momentum,
            self.batch_size,
            self.epochs,
            self.weight_decay,
            crop_padding=self.crop_padding,
        )

    @property
    def shards(self) -> list[list[int]]:
        """Numbers of the groups that run together."""
        groups = list(range(self.n_groups))
        return [
            groups[start : start + self.groups_per_shard] for start in range(0, self.n_groups, self.groups_per_shard)
        ]


def _typed(name, kind, value):
    """``value`` as ``kind``, refusing what YAML or a command line got wrong."""
    if get_origin(kind) is list:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} must be a list, got {value!r}")
        return [_typed(name, get_args(kind)[0], item) for item in value]
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and (whole or isinstance(value, float)):
        return float(value)
    if (kind is int and not whole) or (kind is float) or not isinstance(value, kind):
        raise ValueError(f"{name} must be {kind.__name__}, got {value!r}")
    return value


def _check_increasing(name, values, low, high, *, may_be_empty=False):
    if not values and may_be_empty:
        return
    in_range = all(low <= value <= high for value in values)  # False for NaN
    if not values or not in_range or sorted(set(values)) != values:
        raise ValueError(f"{name} must increase within [{low:g}, {high:g}], got {values}")


def load_profile(path: Path | str, **overrides) -> Profile:
    """Read and check a profile.

    Args:
        path: a YAML file with every key of `Profile` and no other.
        overrides: values that replace the file's, None to keep it.

    Raises:
        FileNotFoundError: no such profile; the message lists those there are.
        ValueError: unknown, missing or wrong keys, each named.
    """
    path = Path(path)
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise FileNotFoundError(f"no profile {path.stem!r}: {path.parent} holds {', '.join(known) or 'none'}")
    values = yaml.safe_load(path.read_text())
    known = [field.name for field in fields(Profile)]
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold keys and values")
    for found, where in ((values, path), (overrides, "override")):
        if unknown := sorted(set(found) - set(known)):
            raise ValueError(f"{where}: unknown keys {unknown}; known are {known}")
    if missing := [name for name in known if name not in values]:
        raise ValueError(f"{path}: keys {missing} are missing")
    try:
        return replace(Profile(**values), **{name: value for name, value in overrides.items() if value is not None})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def code_digest(notebook: Path, *, without: Collection[str] = ()) -> str:
    """SHA-256 of what a notebook computes with: its code cells and the library modules it imports.

    Comments and docstrings do not count, so that explaining code repeats no run; nor do the modules in ``without``.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return _digest(source, _imports(ast.parse(source), top="hrebasin"), without)


@cache
def module_digest(name: str) -> str:
    """`code_digest` of a module of the library."""
    return _digest("", {name}, ())


def _digest(source: str, modules: set[str], without: Collection[str]) -> str:
    library = Path(__file__).parent
    pending, seen = set(modules), {}
    while pending:
        name = pending.pop()
        path = library / f"{name}.py"
        if name not in seen and name not in without and path.is_file():
            tree = ast.parse(path.read_text())
            seen[name] = _without_docstrings(tree)
            pending |= _imports(tree, top="")
    content = [_without_docstrings(ast.parse(source)), *(f"{name}:{seen[name]}" for name in sorted(seen))]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def _imports(tree: ast.Module, *, top: str) -> set[str]:
    """Names of the modules of this library that a tree imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level == 1 or (node.module or "").split(".")[0] == "hrebasin"):
            module = (node.module or "").removeprefix("hrebasin").strip(".")
            names |= {module} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import) and top:
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith(f"{top}.")}
    return names


def _without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
