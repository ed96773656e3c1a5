"""Run one notebook with papermill: parameters checked first, progress and errors on the terminal."""

import ast
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# jsonschema would parse a grammar of addresses, half of the time that these imports take; notebooks need it not
sys.modules.setdefault("rfc3987_syntax", None)
import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from ... import progress
from ...files import replacing
from ..settings import check_device, checked
from .scratch import short_temporary
from .surroundings import jupyters, variables

KERNEL_START = (
    "from hrebasin.study.running import parent_process as _p; from hrebasin.study import notebook_code as _c; "
    "_p.end_with({}); _c.executing({!r}, **{})"
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of tracebacks


def declared_parameters(notebook: Path | str) -> dict[str, str]:
    """Names and default values (as source text) of the parameters that a notebook declares."""
    try:
        return {name: entry["default"] for name, entry in papermill.inspect_notebook(str(notebook)).items()}
    except nbformat.reader.NotJSONError as error:
        raise ValueError(f"{notebook} is no notebook: {error}") from error


def run_notebook(
    notebook: Path | str,
    output: Path | str,
    parameters: Mapping,
    *,
    label: str = "",
    threads: int | None = None,
    origin: Mapping[str, str] | None = None,
) -> None:
    """Execute ``notebook`` with ``parameters`` and write the executed copy to ``output``.

    Args:
        notebook: what is executed.
        output: where the copy goes.
        parameters: by name.
        label: stands before every line of output.
        threads: of the CPU; by default all.
        origin: attributes that every data set of the notebook shall have.

    Raises:
        FileNotFoundError: no such notebook.
        ValueError: a parameter that the notebook does not declare (papermill alone would only warn), or whose value is
            of another type, out of range or at odds with another one; or ``output`` is a folder.
        RuntimeError: a cell failed or the kernel died; the copy up to there is kept beside ``output`` as
            ``<output>.failed.ipynb``.
        OSError: the executed copy could not be written.
    """
    notebook, output = Path(notebook), Path(output)
    if not notebook.is_file():
        raise FileNotFoundError(f"no notebook at {notebook}")
    if output.is_dir():
        raise ValueError(f"{output} is a folder: the executed copy needs the name of a file")
    if output.resolve() == notebook.resolve():
        raise ValueError(f"{output} is the notebook itself: the executed copy needs a name of its own")
    parameters = _checked_parameters(notebook, parameters)
    os.environ[progress.VARIABLE] = "lines"
    if threads:
        os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}  # the kernel inherits them
    start = KERNEL_START.format(os.getpid(), str(notebook.resolve()), dict(origin or {}))
    failed = output.with_suffix(".failed.ipynb")
    with replacing(output) as temporary, _echo(label or notebook.stem), _kernels_own() as transport:
        try:
            papermill.execute_notebook(
                str(notebook),
                str(temporary),
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                log_output=True,
                config=transport,
                shutdown_kernel="immediate",  # everything is written, and who interrupts does not want to wait
                extra_arguments=[f"--IPKernelApp.exec_lines={start}"],
            )
        except (PapermillExecutionError, RuntimeError) as error:
            if temporary.exists():
                temporary.replace(failed)
            if isinstance(error, PapermillExecutionError):
                trace = COLOURS.sub("", "\n".join(error.traceback))
                why = f" failed in cell {error.exec_count}: {error.ename}: {error.evalue}\n{trace}\n"
            else:  # of a kernel that ended, or never began
                why = f": {error}; if nobody stopped the kernel, memory did not suffice. "
            raise RuntimeError(f"{notebook.name}{why}The executed copy is {failed}") from error
    failed.unlink(missing_ok=True)


def failure(copy: Path) -> str:
    """Why the notebook of a failed copy failed, in one line."""
    cells = nbformat.read(copy, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    errors = [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]
    return f"{copy.name.split('.')[0]} failed: {errors[-1] if errors else 'its kernel died'} (see {copy})"


def _checked_parameters(notebook: Path, given: dict) -> dict:
    """What is given, in the types that the notebook declares; all parameters must go together."""
    defaults = {name: ast.literal_eval(text) for name, text in declared_parameters(notebook).items()}
    if unknown := sorted(set(given) - set(defaults)):
        raise ValueError(f"{notebook.name} does not declare the parameters {unknown}; it declares {sorted(defaults)}")
    if empty := [
        name for name in given if name.endswith("_folder") and not str(given[name]).strip() and defaults[name]
    ]:
        raise ValueError(f"{notebook.name}: {empty[0]} must name a folder, got {given[empty[0]]!r}")
    try:
        together = checked(defaults | given, others={name: type(value) for name, value in defaults.items()})
        check_device(together.get("device", "cpu"))
    except ValueError as error:
        raise ValueError(f"{notebook.name}: {error}") from error
    return {name: together[name] for name in given}


@contextmanager
def _kernels_own() -> Iterator[Config]:
    """Where the kernel listens, and what it reads in place of the user's: a folder that is gone at last.

    It listens at sockets there, for kernels started at once can race for TCP ports.
    """
    with (
        tempfile.TemporaryDirectory(
            prefix="kernel-", dir=short_temporary(levels=1), ignore_cleanup_errors=True
        ) as folder,
        variables(jupyters(Path(folder))),
    ):
        sockets = {"transport": "ipc", "ip": f"{folder}/port"}
        yield Config({"KernelManager": sockets} if os.name == "posix" else {})


class _Labelled(logging.StreamHandler):
    """A label before every line; papermill's messages end with empty ones."""

    def __init__(self, label: str):
        super().__init__(sys.stderr)
        self.label = label
        # papermill logs cells' stderr, where progress goes, as warnings; values shown in the notebook stay there
        self.setLevel(logging.WARNING)
        self.addFilter(lambda record: bool(record.getMessage().strip()))

    def format(self, record):
        return "\n".join(f"[{self.label}] {line}" for line in record.getMessage().splitlines() if line.strip())


@contextmanager
def _echo(label: str) -> Iterator[None]:
    """Print the progress of cells line by line, each with a label."""
    logger, handler = logging.getLogger("papermill"), _Labelled(label)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
