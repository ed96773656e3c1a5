"""Surroundings of a command: this Python and this project decide, nothing of the user's own configuration does."""

import getpass
import os
import re
import shutil
import site
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import distribution
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path

# Options of Python's that would reach jobs and kernels by way of the environment
OPTIONS = (
    "PYTHONDEVMODE", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONSAFEPATH", "PYTHONSTARTUP", "PYTHONWARNDEFAULTENCODING",
    "PYTHONWARNINGS",
)  # fmt: skip
# Whatever the user's: windows and dates of figures; Snakemake's profile; packages of the user's, as conda sees them
FIXED = {
    "MPLBACKEND": None, "SNAKEMAKE_PROFILE": None, "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1",
    "HDF5_USE_FILE_LOCKING": "FALSE", "SOURCE_DATE_EPOCH": None,
}  # fmt: skip
FOLDERS = {  # of programs, where the user's home has them
    "XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config", "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
}  # fmt: skip
HOME = re.compile(r"hrebasin-home-(?P<process>\d{1,7})-\w+")  # in place of a home that cannot be used
QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # ignored by default


def begin_anew() -> None:
    """Let this command begin anew where its text is not UTF-8, or the user's packages stand before the environment's.

    Its own arguments were decoded before anything could be set, and jobs, which get what it set, must understand them.
    """
    options = [] if sys.getfilesystemencoding() == "utf-8" else ["-X", "utf8"]
    if site.ENABLE_USER_SITE and site.getusersitepackages() in sys.path and not _installed_beside():
        options += ["-s"]
    if options and os.name == "posix":
        os.execv(sys.executable, [sys.executable, *options, *sys.orig_argv[1:]])  # noqa: S606


@contextmanager
def own_surroundings() -> Iterator[None]:
    """Surroundings of a whole command: no options of Python's, text in UTF-8, a user with a home."""
    changes: dict[str, str | None] = dict.fromkeys(OPTIONS) | FIXED
    if _installed_beside():  # else nothing would be found
        del changes["PYTHONNOUSERSITE"]
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
        if unusable := _unusable():
            home = stack.enter_context(_home())
            changes |= {name: str(home / FOLDERS.get(name, "")) for name in unusable}
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
        "JUPYTER_RUNTIME_DIR": None,
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


def _installed_beside() -> bool:
    """Whether this library itself is one of the user's packages, beside the environment."""
    return str(distribution("hrebasin").locate_file("")) == site.getusersitepackages()


def _unusable() -> list[str]:
    """Variables of the user's folders that say, or by default mean, what cannot be written to."""
    try:
        home = Path.home()
    except RuntimeError:  # none is set, and the user is not in the list of users
        home = None
    if home and not (home.is_dir() and _writable(home)):
        home = None
    given = {name: os.environ.get(name) or (home and home / usual) for name, usual in FOLDERS.items()}
    return ([] if home else ["HOME"]) + [name for name, place in given.items() if place and not _writable(Path(place))]


def _writable(folder: Path) -> bool:
    """Whether a folder, or the nearest one around it that is there, can be written to."""
    if not folder.is_absolute():  # which the standard for XDG's variables forbids
        return False
    there = next((each for each in (folder, *folder.parents) if os.path.exists(each)), Path())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@contextmanager
def _home() -> Iterator[Path]:
    """A home for this command, gone at last; those that killed commands have left go too."""
    import psutil

    for path in Path(tempfile.gettempdir()).iterdir():
        left = HOME.fullmatch(path.name)
        if left and not psutil.pid_exists(int(left["process"])):
            shutil.rmtree(path, ignore_errors=True)  # another user's stays
    with tempfile.TemporaryDirectory(prefix=f"hrebasin-home-{os.getpid()}-") as folder:
        yield Path(folder)
