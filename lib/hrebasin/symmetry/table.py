"""A symmetry as a table for readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .axes import Axis  # which prints itself as a table


def axis_text(axis: Axis) -> str:
    """An axis in one word or a few.

    >>> from hrebasin.symmetry import Factor
    >>> axis_text(((Factor("P8", 4), Factor(None, 49)), (Factor("P1", 3),)))
    'P8 x 49 fixed | P1'
    """
    if all(factor.name is None for segment in axis for factor in segment):
        return "fixed"
    products = [" x ".join(factor.name or f"{factor.size} fixed" for factor in segment) for segment in axis]
    return " | ".join(product or "1 fixed" for product in products)


def table(permutations: Mapping[str, int], axes: Mapping[str, tuple[Axis, ...]]) -> str:
    """The permutations with their sizes, then one row for all tensors of one module that have the same axes.

    Scalars have no axis and no row.
    """
    rows: list[tuple[str, list[str], str]] = []  # (module, its tensors, their axes)
    for tensor, of_tensor in axes.items():
        module, _, name = tensor.rpartition(".")
        text = f"({', '.join(map(axis_text, of_tensor))})"
        if module and rows and (rows[-1][0], rows[-1][2]) == (module, text):
            rows[-1][1].append(name)
        elif of_tensor:
            rows.append((module, [name], text))
    lines = []
    for module, names, text in rows:
        label = names[0] if len(names) == 1 else f"{{{', '.join(names)}}}"
        lines.append((f"{module}.{label}" if module else label, text))
    width = max((len(label) for label, _ in lines), default=0)
    sizes = ", ".join(f"{name} ({size})" for name, size in permutations.items())
    title = f"{len(permutations)} permutation{'' if len(permutations) == 1 else 's'}"
    return "\n".join([f"{title}: {sizes}" if sizes else title, *(f"{label:{width}}  {text}" for label, text in lines)])
