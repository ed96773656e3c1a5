"""Symmetries written by hand, in the classic form of permutation specifications and a little more."""

import math
from collections.abc import Mapping, Sequence

import torch

from .axes import Axis, Factor, Symmetry, axis_size

# An axis in a specification: None (fixed), "P1", a product ("P1", 49), a concatenation ["P1", ("P2", 49), 3].
Entry = str | int | tuple | list | None
Spec = Mapping[str, Sequence[Entry]]


def symmetry_from_spec(spec: Spec, shapes: Mapping, *, sizes: Mapping[str, int] | None = None) -> Symmetry:
    """A symmetry from ``{"fc1.weight": ("P1", None), "fc1.bias": ("P1",)}``: one entry for every axis.

    An entry is None where nothing moves, a permutation's name, a tuple for a product whose major factor comes first
    (``("P8", 49)``: a flattened channel of 49 pixels each), or a list for a concatenation (``["P0", "P1", 3]``).
    Numbers are units that stay.

    >>> spec = {"conv.bias": ("P1",), "fc.weight": (None, ("P1", 49))}
    >>> print(symmetry_from_spec(spec, {"conv.bias": (8,), "fc.weight": (10, 392)}))
    1 permutation: P1 (8)
    conv.bias  (P1)
    fc.weight  (fixed, P1 x 49 fixed)

    Args:
        spec: entries by the tensor's name. Scalars and tensors of integers may be left out.
        shapes: of every tensor by its name; a state dict will do.
        sizes: of permutations that no axis tells, since they only stand in products with other unknown ones.

    Raises:
        ValueError: names or sizes that do not fit; it names the tensor and the axis.
    """
    known = dict(sizes or {})
    given = {tensor: tuple(getattr(shape, "shape", shape)) for tensor, shape in shapes.items()}
    for tensor in spec:
        if tensor not in given:
            raise ValueError(f"the specification names {tensor!r}, which the network does not have")
    for tensor, shape in shapes.items():
        counts = isinstance(shape, torch.Tensor) and not shape.is_floating_point()
        if tensor not in spec and given[tensor] and not counts:
            raise ValueError(f"the specification lacks {tensor!r} of shape {given[tensor]}")
    entries = {tensor: tuple(spec.get(tensor, (None,) * len(shape))) for tensor, shape in given.items()}
    for tensor, shape in given.items():
        if len(entries[tensor]) != len(shape):
            raise ValueError(f"{tensor!r} has {len(shape)} axes, {shape}, but {len(entries[tensor])} entries")
    parts = {
        (tensor, axis): _segments(entry, given[tensor][axis], f"axis {axis} of {tensor!r}")
        for tensor, axes in entries.items()
        for axis, entry in enumerate(axes)
    }
    _learn_sizes(parts, given, known)
    axes = {
        tensor: tuple(_axis(parts[tensor, axis], size, known, f"axis {axis} of {tensor!r}") for axis, size in pairs)
        for tensor, pairs in ((tensor, list(enumerate(shape))) for tensor, shape in given.items())
    }
    used = dict.fromkeys(name for segments in parts.values() for s in segments for name in s if isinstance(name, str))
    return Symmetry({name: known[name] for name in used}, axes)


def _segments(entry: Entry, size: int, where: str) -> list[tuple[str | int, ...]]:
    """An entry as a list of products of names and fixed sizes."""
    segments = entry if isinstance(entry, list) else [size if entry is None else entry]
    products = [segment if isinstance(segment, tuple) else (segment,) for segment in segments]
    for part in (part for product in products for part in product):
        named = isinstance(part, str) and part != ""
        if not named and (isinstance(part, bool) or not isinstance(part, int) or part < 1):
            raise ValueError(f"{where}: an entry holds names and sizes, not {part!r}, in {entry!r}")
    return products


def _learn_sizes(parts: dict, given: dict[str, tuple[int, ...]], known: dict[str, int]) -> None:
    """Find every permutation's size from axes where it is the only unknown, until none is left."""
    n_known = -1
    while len(known) > n_known:
        n_known = len(known)
        for (tensor, axis), segments in parts.items():
            size, unknown = given[tensor][axis], _names(segments) - known.keys()
            if len(unknown) == 1 and all(sum(part in unknown for part in segment) <= 1 for segment in segments):
                (name,) = unknown
                times = sum(_product(segment, {**known, name: 1}) for segment in segments if name in segment)
                rest = sum(_product(segment, known) for segment in segments if name not in segment)
                if (size - rest) % times or size <= rest:
                    where = f"axis {axis} of {tensor!r}"
                    raise ValueError(f"{where} has {size} units, which leave no whole number for {name!r}")
                known[name] = (size - rest) // times


def _names(segments: list[tuple[str | int, ...]]) -> set[str]:
    return {part for segment in segments for part in segment if isinstance(part, str)}


def _product(segment: tuple[str | int, ...], known: Mapping[str, int]) -> int:
    return math.prod(known[part] if isinstance(part, str) else part for part in segment)


def _axis(segments: list[tuple[str | int, ...]], size: int, known: Mapping[str, int], where: str) -> Axis:
    if unknown := sorted(_names(segments) - known.keys()):
        raise ValueError(f"{where}: the sizes of {unknown} are not known; give them as sizes=")
    axis = tuple(
        tuple(Factor(part, known[part]) if isinstance(part, str) else Factor(None, part) for part in segment)
        for segment in segments
    )
    if axis_size(axis) != size:
        names = {name: known[name] for name in sorted(_names(segments))}
        raise ValueError(f"{where} has {size} units, but its entry {segments} has {axis_size(axis)}, with {names}")
    return axis
