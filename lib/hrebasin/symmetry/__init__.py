"""Permutation symmetries of any network: derived from its graph, proven on it, and plain data."""

from .axes import Axis, Factor, Permutations, Place, Symmetry, axis_size, inverse, simplify
from .derive import derive_symmetry
from .prove import SymmetryRefutedError, prove_symmetry
from .specs import symmetry_from_spec

__all__ = [
    "Axis",
    "Factor",
    "Permutations",
    "Place",
    "Symmetry",
    "SymmetryRefutedError",
    "axis_size",
    "derive_symmetry",
    "inverse",
    "prove_symmetry",
    "simplify",
    "symmetry_from_spec",
]
