"""Files that are whole or absent, and on the disk when they are there: a temporary name beside them, then a rename."""

import errno
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)  # what file systems without locks answer
# Read when h5py is loaded: HDF5 would lock what it reads, which they refuse; every file here is whole or absent
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
LEFTOVER = re.compile(r"\.hrebasin-(?P<process>\d{1,7})-[0-9a-f]{8}(\..+)?")  # what `temporary_name` makes


def temporary_name(path: Path) -> Path:
    """A new hidden name beside ``path``, with its suffix, that tells whose it is: this project's and this process's."""
    return path.with_name(f".hrebasin-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well, and vanishes otherwise.

    Raises:
        OSError: the file could not be written; names ``path``.
    """
    temporary = temporary_name(path)
    try:
        make_folder(path.parent)
        yield temporary
        with temporary.open("r+b") as file:  # the name must not reach the disk before the content
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None:  # else its message is all it says
            error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder, and those around it, that outlast a loss of power."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """See to it that the names in a folder are on the disk; systems other than POSIX see to it themselves."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of a file system that cannot
            raise
    finally:
        os.close(opened)


def sync_all() -> None:
    """See to it that all that was written is on the disk: of many files, sooner than one by one."""
    if hasattr(os, "sync"):
        os.sync()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write ``content`` so that a reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def check_readable(path: Path) -> None:
    """Raise OSError, with the file's name, for a file that cannot be read; some libraries say that it is not there."""
    path.open("rb").close()


def read_text(path: Path | str) -> str:
    """The text of a file, which is UTF-8 whatever the locale.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such text; names ``path``.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}") from error


def project_root() -> Path:
    """The folder that holds notebooks/, data/ and pyproject.toml: the nearest one around the working directory.

    Raises:
        FileNotFoundError: the working directory is not inside the project.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise FileNotFoundError(
        f"{here} is not inside the project: no folder around it holds pyproject.toml and notebooks/"
    )


@contextmanager
def only_writer(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder; the operating system lets go of it when this process ends, however it ends.

    Args:
        folder: made if it is missing. Temporary files of processes that are no more are removed, at first and at last.
        wait: until another writer has finished, instead of an error.

    Raises:
        ValueError: another process is writing to the folder.
        OSError: the folder cannot be written to.
    """
    make_folder(folder)
    lock = FileLock(folder / ".lock", timeout=-1 if wait else 0)
    try:
        locked = _locks(folder) and lock.acquire() is not None
    except Timeout:
        raise ValueError(f"another process is writing to {folder}; wait for it or stop it") from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        locked = False
    if not locked:
        warnings.warn(f"{folder} lies on a file system without locks: let no other command write there", stacklevel=3)
    try:
        _clear(folder)
        yield
        _clear(folder)
    finally:
        lock.release()


def _locks(folder: Path) -> bool:
    """Whether the file system knows locks, by letting go of one that is not held; where it does not, files remain."""
    try:
        import fcntl
    except ImportError:
        return True
    opened = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(opened, fcntl.LOCK_UN)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    finally:
        os.close(opened)
    return True


def _clear(folder: Path) -> None:
    for path in list(folder.rglob(".*")):
        name = LEFTOVER.fullmatch(path.name)
        if name and not psutil.pid_exists(int(name["process"])):
            _remove(path)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
