"""Settings: every published value of a run, with its bounds, read from YAML and checked before anything starts."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from ..files import read_text
from ..merging.looks import BUILT_IN as METHODS
from ..merging.looks import RIVALS
from ..training.recipe import OPTIMIZERS, PRECISIONS
from .stages import QUESTIONS

DATASETS = ("cifar10-sample", "cifar10", "fashion-mnist")
CHECKS = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


def _increasing(values: list) -> list:
    if sorted(set(values)) != values:
        raise ValueError("should increase")
    return values


def _start_at_0(values: list) -> list:
    if values[0] != 0:
        raise ValueError("should start at 0, to compare with")
    return values


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("should be a power of two, for a tree of as many leaves")
    return value


def _images(dataset: str) -> str:
    if dataset in DATASETS:  # whatever folder has that name
        return dataset
    folder = Path(dataset).expanduser()
    if not folder.exists():
        raise ValueError(f"should be one of {DATASETS} or an existing folder or archive")
    if missing := [split for split in ("train", "test") if folder.is_dir() and not (folder / split).is_dir()]:
        raise ValueError(f"is a folder without {' and '.join(missing)}, which hold a folder of images a class")
    return dataset


def _compared(methods: list[str]) -> list[str]:
    if missing := {"unmerged", "tree"} - set(methods):
        raise ValueError(f"lacks {sorted(missing)}, which every comparison needs")
    return methods


T = TypeVar("T")
MOST = 10_000_000  # more than anybody means
Number = Annotated[int, Field(ge=0, le=MOST)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Groups = Annotated[int, Field(ge=1, le=10_000)]
Passes = Annotated[int, Field(ge=1, le=10_000)]  # sweeps or epochs
Passed = Annotated[float, Field(gt=0, le=10_000)]  # epochs, also parts of one
Leaves = Annotated[int, Field(ge=2), AfterValidator(_power_of_two)]
Share = Annotated[float, Field(ge=1e-6, le=1)]
Size = Annotated[float, Field(ge=0, le=1)]  # of a perturbation, pixel range
Length = Annotated[float, Field(ge=1e-12, le=1e6)]
Factor = Annotated[float, Field(ge=1e-3, le=1e3)]
Some = Annotated[list[T], Field(min_length=1)]
Steps = Annotated[list[T], AfterValidator(_increasing)]
Grid = Annotated[list[T], Field(min_length=1), AfterValidator(_increasing)]


class Setting(BaseModel):
    """All values of a run; each is also the parameter of that name in the notebooks that declare it.

    Units and meanings stand beside the values in ``config/*.yaml``.
    """

    model_config = CHECKS

    dataset: Annotated[str, AfterValidator(_images)]
    train_images: Number
    test_images: Number
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    n_groups: Groups
    first_group: Number
    groups_per_shard: Count
    leaves: Leaves
    network: Literal["mlp", "convolutional", "residual"]
    widths: Some[Count]
    optimizer: Literal[OPTIMIZERS]
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0)]
    batch_size: Count
    epochs: Passes
    weight_decay: Annotated[float, Field(ge=0)]
    crop_padding: Number
    flip: bool
    precision: Literal[PRECISIONS]
    l1_strengths: Steps[Length]
    l2_strengths: Steps[Length]
    regularised_models: Count
    regularised_groups: Number
    snapshot_epochs: Steps[Passed]
    snapshot_models: Count
    merge_many_sizes: Grid[Annotated[int, Field(ge=2)]]
    merge_many_limits: Grid[Passes]
    merge_many_sets: Count
    matching_seed: Number
    attacked_methods: Annotated[Some[Literal[METHODS]], AfterValidator(_compared)]
    attacked_sets: Count
    attacked_images: Count
    epsilons: Grid[Size]
    noise_magnitudes: Annotated[Grid[Size], AfterValidator(_start_at_0)]
    noise_draws: Count
    bounded_images: Count
    radii: Grid[Length]
    ablation_pairs: Count
    n_lambdas: Annotated[int, Field(ge=2)]  # both ends
    evaluated_images: Count
    control_shares: Grid[Share]
    strong_networks: Count
    strong_images: Count
    strong_epsilons: Grid[Size]
    pgd_steps: Count
    pgd_restarts: Count
    square_queries: Count
    rivals: list[Literal[tuple(RIVALS)]]
    merger_sizes: Grid[Leaves]
    merger_limits: Grid[Passes]
    merger_orders: Count
    repair_images: Count
    recipe_groups: Count
    recipe_leaves: Leaves
    recipe_images: Number
    width_factors: Grid[Factor]
    width_images: Number

    @model_validator(mode="after")
    def _fits(self):
        _check_fit(vars(self))
        return self

    @property
    def shards(self) -> dict[int, list[int]]:
        """Shard -> numbers of the groups that run together; a group is of the same shard whichever group is first."""
        size, end = self.groups_per_shard, self.first_group + self.n_groups
        starts = range(self.first_group, end, size)
        return {start // size: list(range(start, min(start + size, end))) for start in starts}


class _Wiring(BaseModel):
    """What a notebook gets beside values of a setting."""

    run_folder: str
    shard: Number
    questions: Some[Literal[tuple(QUESTIONS)]]
    groups: Grid[Number]
    shards: Grid[Number]
    recipe_shards: Steps[Number]


_FIELDS = Setting.model_fields | _Wiring.model_fields
# Values that are one text, number or truth value each, and which of these: str, int, float or bool
SINGLE = {
    name: str if get_origin(field.annotation) is Literal else field.annotation
    for name, field in Setting.model_fields.items()
    if get_origin(field.annotation) is Literal or field.annotation in (str, int, float, bool)
}


def checked(values: Mapping, *, others: Mapping[str, type] | None = None) -> dict:
    """Values of a notebook's parameters, as `Setting` has them: some of its fields, the wiring, and ``others``.

    Args:
        values: by name.
        others: types of those that no setting has; their bounds are the notebook's to check.

    Raises:
        ValueError: a value of the wrong type, out of range, or at odds with another one; each named.
    """
    kinds = {name: (_FIELDS[name].annotation, _FIELDS[name]) for name in values if name in _FIELDS}
    kinds |= {name: (kind, ...) for name, kind in (others or {}).items() if name not in _FIELDS}
    found = dict(_validated(create_model("Parameters", __config__=CHECKS, **kinds), values))
    _check_fit(found)
    return found


class _Once(yaml.SafeLoader):
    """YAML whose keys stand once; PyYAML takes the last of several."""

    def construct_mapping(self, node, deep=False):
        """Refuse a second one."""
        keys = [key.value for key, _ in node.value]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"keys stand twice: {twice}")
        return super().construct_mapping(node, deep)


def load_setting(path: Path | str, **overrides) -> Setting:
    """Read and check a setting.

    Args:
        path: a YAML file with every key of `Setting` and no other.
        overrides: values that replace the file's, None to keep it.

    Raises:
        FileNotFoundError: no such setting; the message lists those there are.
        ValueError: unknown, missing or wrong keys, each named.
    """
    path = Path(path)
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("[!.]*.yaml"))
        raise FileNotFoundError(f"no setting {path.stem!r}: {path.parent} holds {', '.join(known) or 'none'}")
    try:
        values = _Once(read_text(path)).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # the latter of numbers too long, of lists too deep
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold keys and values")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return _validated(Setting, values | given)
    except ValueError as error:
        told = f" with {', '.join(f'{name}={value}' for name, value in given.items())}" if given else ""
        raise ValueError(f"{path}{told}: {error}") from error


def schema(explained: Path) -> str:
    """The JSON schema of settings, for editors, as text; comments of the setting ``explained`` tell what keys mean."""
    found = Setting.model_json_schema()
    found["description"] = "A setting: all values of a run."
    for name, comment in re.findall(r"^(\w+):[^#]*# (.*)$", read_text(explained), flags=re.MULTILINE):
        found["properties"][name] = {"description": comment} | found["properties"][name]
    return json.dumps(found, indent=1) + "\n"


def check_device(device: str) -> None:
    """Raise ValueError unless this machine has the device."""
    if device != "cpu":
        import torch  # only now: it takes seconds

        if int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
            raise ValueError(f"device {device!r} is not there: this machine has {torch.cuda.device_count()} CUDA GPUs")


def _validated(model: type[BaseModel], values: Mapping) -> BaseModel:
    """A model of these values; what is wrong with them in one line."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValueError("; ".join(_complaints(error.errors(include_url=False)))) from error


def _complaints(errors: list) -> list[str]:
    said = []
    for kind, text in (("extra_forbidden", "unknown keys"), ("missing", "missing keys")):
        if names := sorted(str(error["loc"][-1]) for error in errors if error["type"] == kind):
            said.append(f"{text} {names}")
    for error in errors:
        if error["type"] in ("extra_forbidden", "missing"):
            continue
        message = re.sub("^(Value error,|Input|List|String) ", "", error["msg"])
        if not error["loc"]:  # values that do not fit together
            said.append(message)
        else:
            name, *places = error["loc"]
            said.append(f"{name}{''.join(f'[{place}]' for place in places)} {message}, got {error['input']!r}")
    return said


def _check_fit(values: Mapping) -> None:
    """Raise ValueError unless those values that are there go together."""
    first, size = values.get("first_group", 0), values.get("groups_per_shard", 1)
    if first % size:
        raise ValueError(f"first_group should be a multiple of groups_per_shard={size}, got {first}")
    if (leaves := values.get("leaves")) is None:
        return
    pairs = leaves // 2 + (leaves - 1) * (leaves - 2) // 2  # see merging.ablations.pairs_of
    if values.get("ablation_pairs", 0) > pairs:
        raise ValueError(f"ablation_pairs={values['ablation_pairs']} exceeds the {pairs} of leaves={leaves}")
    if values.get("regularised_models", 0) > leaves:
        raise ValueError(f"regularised_models={values['regularised_models']} exceeds leaves={leaves}")
    for name in ("merge_many_sizes", "merger_sizes"):
        if (largest := max(values.get(name, [0]))) > leaves:
            raise ValueError(f"{name} should lie in [2, leaves={leaves}], got {largest}")
    for name in ("snapshot_models", "strong_networks"):  # of the latter, one is left to transfer images from
        if values.get(name, 0) >= leaves:
            raise ValueError(f"{name} should be below leaves={leaves}, got {values[name]}")
