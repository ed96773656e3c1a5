"""Progress through tqdm: a bar in a terminal or in JupyterLab, a few whole lines in a log, silence elsewhere."""

import io
import os
import sys

from tqdm import tqdm

VARIABLE = "HREBASIN_PROGRESS"  # "lines": set by the notebook runner, whose output is a log
SECONDS = 5.0  # until the first line of a log, and between its first ones
SHARE = 0.25  # of the time that has passed until the next line, so that hours leave tens of lines, not thousands
MOST_SECONDS = 300.0  # between two lines: a log must show that something is alive


class _Log(tqdm):
    """Lines on stderr, rarer the longer it takes; the last one when it is done."""

    def display(self, msg=None, pos=None):
        """Write how far it is."""
        print(self if msg is None else msg, file=sys.stderr, flush=True)
        self.mininterval = min(max(SECONDS, SHARE * self.format_dict["elapsed"]), MOST_SECONDS)


class _Cell(tqdm):
    """A bar below a cell; empty when it is done, so that a saved notebook holds nothing of it."""

    handle = None

    def display(self, msg=None, pos=None):
        """Show how far it is in place of the last time."""
        from IPython.display import display

        self.handle = self.handle or display({"text/plain": ""}, raw=True, display_id=True)
        self.handle.update({"text/plain": str(self) if msg is None else msg}, raw=True)


def track(iterable=None, *, label: str, total: int | None = None, unit: str = "it") -> tqdm:
    """Wrap ``iterable`` (or count up to ``total`` by hand) with a progress report named ``label``."""
    options = {"desc": label, "total": total, "unit": f" {unit}"}
    kernel = _kernel()
    if os.environ.get(VARIABLE) == "lines" or (kernel and _is_batch(kernel)):
        options |= {"mininterval": SECONDS, "delay": SECONDS, "miniters": 1, "ncols": 100, "ascii": " ="}
        return _Log(iterable, file=io.StringIO(), **options)
    if kernel:
        return _Cell(iterable, file=io.StringIO(), ncols=80, leave=False, **options)
    return tqdm(iterable, disable=None, leave=False, **options)


def _kernel():
    """The kernel that this process is, or None."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None)


def _is_batch(kernel) -> bool:
    """Whether nobody could answer the running cell, as under papermill: what it shows goes to a log."""
    return not kernel._allow_stdin
