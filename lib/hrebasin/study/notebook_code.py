"""Which code a notebook's results come from: a digest that its data sets tell; free of slow imports."""

import json
from contextlib import suppress
from pathlib import Path

from ..digests import NEUTRAL, code_digest
from ..files import read_text
from .figures import FIGURES
from .questions import ALL, OPEN
from .stages import ANSWERS, PAPER

# What only shows or writes: a new colour must not train 1600 networks again. What a data set holds is guarded by the
# format's name in `records`.
PRESENTATION = (
    *NEUTRAL,
    "study.command",
    "study.figures",
    "study.notebook_code",
    "study.publishing",
    "study.records",
    "study.running",
    "study.settings",
    *(f"study.questions.{question.module}.draw" for question in ALL.values()),
)
# What notebooks that conclude find by name when they run, which their code does not show
FOUND_BY_NAME = (
    *(f"study.{place}" for place, _ in FIGURES.values()),
    *(f"study.questions.{question.module}:{part}" for question in OPEN.values() for part in ("TITLE", "answer")),
)
executed: dict[str, str] = {}  # what data sets written by this process tell of the notebook that it executes


def notebook_digest(notebook: Path) -> str:
    """SHA-256 of the code that results of a notebook depend on: its cells and the modules that they import.

    Raises:
        ModuleNotFoundError: it imports a module of the library that is not there.
    """
    if notebook.stem in (PAPER, ANSWERS):
        return code_digest(notebook_code(notebook), modules=FOUND_BY_NAME)
    return code_digest(notebook_code(notebook), without=PRESENTATION)


def notebook_code(notebook: Path) -> str:
    """The code cells of a notebook, as one text."""
    cells = json.loads(read_text(notebook))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def executing(notebook: Path | str, **origin: str) -> None:
    """Tell this process which notebook it executes, for the attributes of the data sets that it writes: `executed`.

    These are ``code_digest``, of the notebook, and ``origin``.
    """
    executed.update(origin)
    with suppress(SyntaxError):  # of cells with magics, which are not Python
        executed["code_digest"] = notebook_digest(Path(notebook))
