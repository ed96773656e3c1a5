"""Progress through tqdm: a bar in a terminal or notebook, whole lines in a log, silence elsewhere."""

import os
import sys

from tqdm import tqdm as plain

VARIABLE = "HREBASIN_PROGRESS"  # "lines": set by the notebook runner, whose output is a log
UP = "\x1b[A"  # a second bar moves the cursor up when it is done
SECONDS = 5  # between lines of a log: often enough to see life, seldom enough for a log that is read afterwards


class _Lines:
    """A stream for tqdm that writes each refresh as a line of its own, so that logs hold no carriage returns."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        text = text.replace("\r", "").replace(UP, "").strip()
        if text:
            self.stream.write(f"{text}\n")

    def flush(self):
        self.stream.flush()


def track(iterable=None, *, label: str, total: int | None = None, unit: str = "it") -> plain:
    """Wrap ``iterable`` (or count up to ``total`` by hand) with a progress report named ``label``."""
    options = {"desc": label, "total": total, "unit": f" {unit}", "leave": False}
    if os.environ.get(VARIABLE) == "lines":
        options |= {
            "file": _Lines(sys.stderr),
            "mininterval": SECONDS,
            "delay": SECONDS,
            "ncols": 100,
            "ascii": " =",
            "miniters": 1,
        }
        return plain(iterable, **options)
    from tqdm.auto import tqdm  # warns where ipywidgets is missing, so not at import

    return tqdm(iterable, disable=None if "ipykernel" not in sys.modules else False, **options)
