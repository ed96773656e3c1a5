"""Folders with one writer, who first clears away what a killed one has left."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ...files import _remove
from .surroundings import variables

PATIENCE = 10  # seconds that processes may take to end
LONGEST_SOCKET = 103  # bytes of a socket's path, on macOS; 107 on Linux


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for all temporary files of this process and its children meanwhile; empty at first, gone at last.

    Its name is decided by ``folder`` and the user alone: so the next run finds and empties what a killed one has left.
    """
    user = os.getuid() if hasattr(os, "getuid") else Path.home()
    name = hashlib.sha256(os.fsencode(f"{user} {folder.resolve()}")).hexdigest()[:12]
    path = Path(short_temporary(levels=2), f"hrebasin-{name}")
    _remove(path)
    path.mkdir(mode=0o700)
    here, tempfile.tempdir = tempfile.tempdir, str(path)
    try:
        with variables({"TMPDIR": str(path)}):
            yield path
    finally:
        tempfile.tempdir = here
        # A kernel that was interrupted while it started ends a second later, and would make the folder anew.
        psutil.wait_procs(processes_with("TMPDIR", path), timeout=PATIENCE)
        shutil.rmtree(path, ignore_errors=True)


def processes_with(variable: str, value: Path | str) -> list[psutil.Process]:
    """Processes that began with a value in their environment, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(variable) == str(value):
                found.append(process)
    return found


def short_temporary(*, levels: int) -> str:
    """Where temporary files go; /tmp if a socket so many levels deeper would have too long a path."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) + 24 * levels <= LONGEST_SOCKET else "/tmp"  # noqa: S108
