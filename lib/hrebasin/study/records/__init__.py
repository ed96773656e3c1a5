"""Data sets: what each stage writes, with units and provenance, written whole and read back validated."""

from .data_sets import FORMAT, concat, join, read, read_results, write
from .origins import describe, misfits, networks_of, seconds
from .provenance import PROVENANCE, Clock, derived, loaded, plain_values, provenance
from .schemas import schema
from .tables import columns

__all__ = [
    "FORMAT",
    "PROVENANCE",
    "Clock",
    "columns",
    "concat",
    "derived",
    "describe",
    "join",
    "loaded",
    "misfits",
    "networks_of",
    "plain_values",
    "provenance",
    "read",
    "read_results",
    "schema",
    "seconds",
    "write",
]
