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

    written = -1  # how far it was in the last line

    def display(self, msg=None, pos=None):
        """Write how far it is, if it has got on."""
        if self.n == self.written:
            return
        self.written = self.n
        print(self, file=sys.stderr, flush=True)
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
    if os.environ.get(VARIABLE) == "lines" or in_batch():
        options |= {"mininterval": SECONDS, "delay": SECONDS, "miniters": 1, "ncols": 100, "ascii": " ="}
        return _Log(iterable, file=io.StringIO(), **options)
    if _kernel():
        return _Cell(iterable, file=io.StringIO(), ncols=80, leave=False, **options)
    return tqdm(iterable, disable=None, leave=False, **options)


def _kernel():
    """The kernel that this process is, or None."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None)


def in_batch() -> bool:
    """Whether a notebook runs with nobody there to answer it or to move its controls, as under papermill."""
    kernel = _kernel()
    return kernel is not None and not kernel._allow_stdin
