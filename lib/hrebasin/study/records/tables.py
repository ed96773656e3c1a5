"""Tables as data sets: a dimension of rows, a variable for each column."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr


def columns(rows: Sequence[Mapping], dim: str, about: Mapping[str, tuple[str, str]]) -> dict[str, xr.Variable]:
    """Columns of a table by name.

    Args:
        rows: values by column.
        dim: what a row stands for.
        about: column -> long name, units; the columns wanted.
    """
    found = {}
    for name, (long_name, units) in about.items():
        values = [row[name] for row in rows]
        kind = object if values and isinstance(values[0], str) else None
        found[name] = xr.Variable(dim, np.array(values, dtype=kind), {"long_name": long_name, "units": units})
    return found
