"""Surroundings of a command: this Python and this project decide, nothing of the user's own configuration does."""

import getpass
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path

# Options of Python's that would reach jobs and kernels by way of the environment
OPTIONS = (
    "PYTHONDEVMODE", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONSAFEPATH", "PYTHONSTARTUP", "PYTHONWARNDEFAULTENCODING",
    "PYTHONWARNINGS",
)  # fmt: skip
QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # ignored by default


@contextmanager
def own_surroundings() -> Iterator[None]:
    """Surroundings of a whole command: no options of Python's, text in UTF-8, a user with a home."""
    changes: dict[str, str | None] = dict.fromkeys(OPTIONS) | {"PYTHONUTF8": "1"}
    with suppress(ImportError):
        if matplotlib := find_spec("matplotlib"):  # its own defaults, in place of the user's
            changes["MATPLOTLIBRC"] = str(Path(str(matplotlib.origin)).parent / "mpl-data" / "matplotlibrc")
    if isinstance(sys.stdout, TextIOWrapper):  # a locale without some letter must not end what prints it
        sys.stdout.reconfigure(errors="backslashreplace")
    with ExitStack() as stack:
        if sys.warnoptions:  # errors among them would stop others' code
            stack.enter_context(warnings.catch_warnings())
            warnings.resetwarnings()
            for category in QUIET:
                warnings.simplefilter("ignore", category)
        if not _home_can_be_used():
            changes["HOME"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="hrebasin-home-"))
        try:
            getpass.getuser()
        except (KeyError, OSError):  # no variable tells, and the list of users does not have this one
            changes["USER"] = "nobody"
        stack.enter_context(variables(changes))
        yield


def jupyters(folder: Path) -> dict[str, str | None]:
    """Variables by which Jupyter and IPython keep to a folder and to this Python's kernel, see `variables`."""
    return {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_CONFIG_PATH": None,
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_PATH": None,
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONSTARTUP": None,
    }


@contextmanager
def variables(changes: Mapping[str, str | None]) -> Iterator[None]:
    """The environment with some variables set, or taken away where they are None; as it was afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _home_can_be_used() -> bool:
    try:
        home = Path.home()
    except RuntimeError:  # none is set, and the user is not in the list of users
        return False
    return home.is_dir() and os.access(home, os.W_OK | os.X_OK)
