"""Run one notebook with papermill: parameters checked first, progress and errors on the terminal.

python -m hrebasin.study.running.notebook_runner notebooks/01_train.ipynb out.ipynb '{"groups": [0]}'
python -m hrebasin.study.running.notebook_runner notebooks/01_train.ipynb out.ipynb -p epochs 5 -y 'groups: [0]' -f more.yaml
"""

import argparse
import ast
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# jsonschema would parse a grammar of addresses, a third of the time that a small notebook takes; notebooks need it not
sys.modules.setdefault("rfc3987_syntax", None)
import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from ... import progress
from ...files import replacing
from ..settings import KINDS, check_device, checked, typed
from .parent_process import end_with
from .scratch import short_temporary

KERNEL = "python3"
KERNEL_START = (
    "from hrebasin.study.running import parent_process as _p; from hrebasin.study import notebook_code as _c; "
    "_p.end_with({}); _c.executing({!r}, **{})"
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of tracebacks


def declared_parameters(notebook: Path | str) -> dict[str, str]:
    """Names and default values (as source text) of the parameters that a notebook declares."""
    return {name: entry["default"] for name, entry in papermill.inspect_notebook(str(notebook)).items()}


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
    parameters = _checked_parameters(notebook, parameters)
    os.environ[progress.VARIABLE] = "lines"
    if threads:
        os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}  # the kernel inherits them
    start = KERNEL_START.format(os.getpid(), str(notebook.resolve()), dict(origin or {}))
    failed = output.with_suffix(".failed.ipynb")
    with replacing(output) as temporary, _echo(label or notebook.stem), _transport() as transport:
        try:
            papermill.execute_notebook(
                str(notebook),
                str(temporary),
                parameters=parameters,
                kernel_name=KERNEL,
                progress_bar=False,
                log_output=True,
                config=transport,
                shutdown_kernel="immediate",  # everything is written, and who interrupts does not want to wait
                extra_arguments=[f"--IPKernelApp.exec_lines={start}"],
            )
        except PapermillExecutionError as error:
            temporary.replace(failed)
            trace = COLOURS.sub("", "\n".join(error.traceback))
            raise RuntimeError(
                f"{notebook.name} failed in cell {error.exec_count}: {error.ename}: {error.evalue}\n{trace}\n"
                f"The executed copy is {failed}"
            ) from error
        except RuntimeError as error:  # of a kernel that ended, or never began
            if temporary.exists():
                temporary.replace(failed)
            raise RuntimeError(
                f"{notebook.name}: {error}; if nobody stopped the kernel, memory did not suffice. "
                f"The executed copy is {failed}"
            ) from error
    failed.unlink(missing_ok=True)


def failure(copy: Path) -> str:
    """Why the notebook of a failed copy failed, in one line."""
    cells = nbformat.read(copy, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    errors = [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]
    return f"{copy.name.split('.')[0]} failed: {errors[-1] if errors else 'its kernel died'} (see {copy})"


def _checked_parameters(notebook: Path, given: Mapping) -> dict:
    """What is given, in the types that the notebook declares; all parameters must go together."""
    defaults = {name: ast.literal_eval(text) for name, text in declared_parameters(notebook).items()}
    if unknown := sorted(set(given) - set(defaults)):
        raise ValueError(f"{notebook.name} does not declare the parameters {unknown}; it declares {sorted(defaults)}")
    try:
        given = {name: typed(name, type(defaults[name]), value) for name, value in given.items()}
        together = {name: value for name, value in (defaults | given).items() if name in KINDS}
        given |= {name: value for name, value in checked(together).items() if name in given}
        check_device(together.get("device", "cpu"))
    except ValueError as error:
        raise ValueError(f"{notebook.name}: {error}") from error
    return given


@contextmanager
def _transport() -> Iterator[Config]:
    """Where the kernel listens: sockets in a folder of its own, for kernels started at once can race for TCP ports."""
    if os.name != "posix":
        yield Config()
        return
    with tempfile.TemporaryDirectory(prefix="kernel-", dir=short_temporary(levels=1)) as folder:
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/port"}})


class _Labelled(logging.Formatter):
    """A label before every line; papermill's messages end with empty ones."""

    def __init__(self, label: str):
        super().__init__()
        self.label = label

    def format(self, record):
        return "\n".join(f"[{self.label}] {line}" for line in record.getMessage().splitlines() if line.strip())


class _echo:
    """Prints the progress of cells line by line, each with a label."""

    def __init__(self, label: str):
        self.label, self.logger = label, logging.getLogger("papermill")

    def __enter__(self):
        self.handler = logging.StreamHandler(sys.stderr)
        self.handler.setFormatter(_Labelled(self.label))
        # papermill logs cells' stderr, where progress goes, as warnings; values shown in the notebook stay there
        self.handler.setLevel(logging.WARNING)
        self.handler.addFilter(lambda record: bool(record.getMessage().strip()))
        self.logger.addHandler(self.handler)
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False

    def __exit__(self, *exception):
        self.logger.removeHandler(self.handler)


def _parameters(given: argparse.Namespace) -> dict:
    """All parameters of a command line; of the same name, -p wins over -y over -f over JSON, as papermill has it."""
    sources = [("JSON", given.parameters)]
    try:
        sources += [(str(path), yaml.safe_load(path.read_text())) for path in given.f]
        sources += [(f"-y {text!r}", yaml.safe_load(text)) for text in given.y]
    except yaml.YAMLError as error:
        raise ValueError(f"parameters are not valid YAML: {error}") from error
    for where, values in sources:
        if not isinstance(values, dict):
            raise ValueError(f"{where} must hold names and values of parameters, got {values!r}")
    together = {name: value for _, values in sources for name, value in values.items()}
    return together | {name: _value(text) for name, text in given.p}


def _value(text: str):
    """A whole number, a number, True, False, None or the text itself."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return {"True": True, "False": False, "None": None}.get(text, text)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 when the notebook ran through."""
    parser = argparse.ArgumentParser(
        prog="python -m hrebasin.study.running.notebook_runner", description=__doc__.splitlines()[0]
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path, help="where the executed copy goes")
    parser.add_argument("parameters", nargs="?", default="{}", type=json.loads, help="JSON object")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    parser.add_argument("-y", action="append", default=[], metavar="YAML", help="parameters as YAML text")
    parser.add_argument("-f", action="append", default=[], metavar="FILE", type=Path, help="a YAML file of parameters")
    parser.add_argument("--place", default="{}", type=json.loads, help="JSON object: parameters, before all others")
    parser.add_argument(
        "--profile", help="whose values these are, for the data sets to tell; by default the run's name"
    )
    parser.add_argument("--images", metavar="DIGEST", help="of the files of images, for the data sets to tell")
    parser.add_argument("--label", default="", help="stands before every line of output")
    parser.add_argument("--threads", type=int, help="CPU threads; by default all")
    parser.add_argument("--parent", type=int, help="process with which this one ends")
    given = parser.parse_args(arguments)
    if given.parent:
        end_with(given.parent)
    try:
        parameters = _parameters(given) | given.place
        origin = {"profile": given.profile, "images_digest": given.images}
        origin = {name: value for name, value in origin.items() if value}
        run_notebook(given.notebook, given.output, parameters, label=given.label, threads=given.threads, origin=origin)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"[{given.label or given.notebook.stem}] {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
