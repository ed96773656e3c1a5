"""Profiles: every published value of a run, read from YAML and checked before anything starts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args, get_origin

import yaml

from ..merging.looks import PAPER as METHODS
from ..training.recipe import OPTIMIZERS, PRECISIONS, Recipe
from .stages import QUESTIONS

DATASETS = ("cifar10-sample", "cifar10", "fashion-mnist")
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
    first_group: int
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
    control_epochs: list[int]
    control_shares: list[float]
    control_seeds: int
    strong_networks: int
    strong_images: int
    strong_epsilons: list[float]
    pgd_steps: int
    pgd_restarts: int
    merger_sizes: list[int]
    merger_limits: list[int]
    merger_orders: int
    scale_bounded_images: int
    repair_images: int
    recipe_groups: int
    recipe_leaves: int
    recipe_images: int
    width_factors: list[float]
    width_images: int

    def __post_init__(self):
        for name, value in checked(vars(self)).items():
            object.__setattr__(self, name, value)

    @property
    def shards(self) -> dict[int, list[int]]:
        """Shard -> numbers of the groups that run together; a group is of the same shard whichever group is first."""
        size, end = self.groups_per_shard, self.first_group + self.n_groups
        starts = range(self.first_group, end, size)
        return {start // size: list(range(start, min(start + size, end))) for start in starts}


# What a notebook gets beside values of a profile
WIRING = {"run_folder": str, "shard": int, "questions": list[str]}
WIRING |= dict.fromkeys(("groups", "shards", "recipe_shards"), list[int])
KINDS = {field.name: field.type for field in fields(Profile)} | WIRING
SETTINGS_OF_RECIPE = {field.name for field in fields(Recipe)}
CHOICES = {"optimizer": OPTIMIZERS, "precision": PRECISIONS}
SMALLEST = {
    **dict.fromkeys(("n_groups", "groups_per_shard", "regularised_models", "merge_many_sets", "attacked_images"), 1),
    **dict.fromkeys(("noise_draws", "bounded_images", "ablation_pairs", "evaluated_images"), 1),
    **dict.fromkeys(("control_seeds", "strong_networks", "strong_images", "pgd_steps", "pgd_restarts"), 1),
    **dict.fromkeys(("merger_orders", "scale_bounded_images", "repair_images", "recipe_groups"), 1),
    **dict.fromkeys(("recipe_images", "width_images"), 0),
    **dict.fromkeys(("train_images", "test_images", "first_group", "regularised_groups", "matching_seed", "shard"), 0),
    "n_lambdas": 2,  # both ends
}
INCREASING = {
    "merge_many_sizes": (2, 1_000_000),
    "merge_many_limits": (1, 10_000),
    "epsilons": (0, 1),
    "noise_magnitudes": (0, 1),
    "radii": (1e-12, 1e6),
    "control_epochs": (1, 10_000),
    "control_shares": (1e-6, 1),
    "strong_epsilons": (0, 1),
    "merger_sizes": (2, 1_000_000),
    "merger_limits": (1, 10_000),
    "width_factors": (1e-3, 1e3),
    "l1_strengths": (1e-12, 1e6),
    "l2_strengths": (1e-12, 1e6),
    "groups": (0, 1_000_000),
    "shards": (0, 1_000_000),
    "recipe_shards": (0, 1_000_000),
}


def checked(values: Mapping) -> dict:
    """Values of a profile, all of them or those that a notebook declares, in their types.

    Raises:
        ValueError: a value of the wrong type, out of range, or at odds with another one; each named.
    """
    values = {name: typed(name, KINDS[name], value) for name, value in values.items()}
    for name, value in values.items():
        _check_value(name, value)
    Recipe(**{name: value for name, value in values.items() if name in SETTINGS_OF_RECIPE})
    if "leaves" in values:
        _check_fit(values["leaves"], values)
    first, size = values.get("first_group", 0), values.get("groups_per_shard", 1)
    if first % size:
        raise ValueError(f"first_group must be a multiple of groups_per_shard={size}, got {first}")
    return values


def _check_value(name, value):
    if name in CHOICES and value not in CHOICES[name]:
        raise ValueError(f"{name} must be one of {CHOICES[name]}, got {value!r}")
    if name in SMALLEST and value < SMALLEST[name]:
        raise ValueError(f"{name} must be at least {SMALLEST[name]}, got {value}")
    if name in INCREASING and not (value == [] and name.endswith(("strengths", "recipe_shards"))):
        _check_increasing(name, value, *INCREASING[name])
    if name == "dataset" and value not in DATASETS and not Path(value).expanduser().exists():
        raise ValueError(f"dataset must be one of {DATASETS} or an existing folder or archive, got {value!r}")
    if name == "device" and not DEVICE.fullmatch(value):
        raise ValueError(f"device must be cpu, cuda or cuda:<number>, got {value!r}")
    if name in ("leaves", "recipe_leaves") and (value < 2 or value & (value - 1)):
        raise ValueError(f"a tree needs 2**k leaves, got {name}={value}")
    if name == "merger_sizes" and any(size & (size - 1) for size in value):
        raise ValueError(f"merger_sizes must be powers of two, for trees of as many leaves, got {value}")
    if name == "questions" and (not value or set(value) - set(QUESTIONS)):
        raise ValueError(f"questions must be one or more of {tuple(QUESTIONS)}, got {value}")
    if name == "widths" and (not value or min(value) < 1):
        raise ValueError(f"widths must be positive, got {value}")
    if name == "noise_magnitudes" and value[0] != 0:
        raise ValueError(f"noise_magnitudes must start at 0, to compare with, got {value}")
    if name == "attacked_methods":
        if not value or set(value) - set(METHODS):
            raise ValueError(f"attacked_methods must be one or more of {METHODS}, got {value}")
        if missing := {"unmerged", "tree"} - set(value):
            raise ValueError(f"attacked_methods lacks {sorted(missing)}, which every comparison needs")


def _check_fit(leaves, values):
    """Numbers of networks that a tree must have."""
    pairs = leaves // 2 + (leaves - 1) * (leaves - 2) // 2  # see ablations.pairs_of
    if values.get("ablation_pairs", 0) > pairs:
        raise ValueError(f"ablation_pairs={values['ablation_pairs']} exceeds the {pairs} of leaves={leaves}")
    if values.get("regularised_models", 0) > leaves:
        raise ValueError(f"regularised_models={values['regularised_models']} exceeds leaves={leaves}")
    for name in ("merge_many_sizes", "merger_sizes"):
        if (largest := max(values.get(name, [0]))) > leaves:
            raise ValueError(f"{name} must lie in [2, leaves={leaves}], got {largest}")
    if values.get("strong_networks", 0) >= leaves:  # one is left to transfer images from
        raise ValueError(f"strong_networks must be below leaves={leaves}, got {values['strong_networks']}")


def check_device(device: str) -> None:
    """Raise ValueError unless this machine has the device."""
    if device != "cpu":
        import torch  # only now: it takes seconds

        if int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
            raise ValueError(f"device {device!r} is not there: this machine has {torch.cuda.device_count()} CUDA GPUs")


def typed(name: str, kind: type, value):
    """``value`` as ``kind``, refusing what YAML or a command line got wrong; whole numbers become floats."""
    if kind is list or get_origin(kind) is list:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} must be a list, got {value!r}")
        return [typed(name, *get_args(kind), item) for item in value] if get_args(kind) else list(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and (whole or isinstance(value, float)):
        return float(value)
    if (kind is int and not whole) or (kind is float) or not isinstance(value, kind):
        raise ValueError(f"{name} must be {kind.__name__}, got {value!r}")
    return value


def _check_increasing(name, values, low, high):
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
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
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
