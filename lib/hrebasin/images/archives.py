"""Archives of images, unpacked once into a folder that nothing in them can leave."""

import atexit
import hashlib
import lzma
import shutil
import tarfile
import tempfile
import warnings
import zlib
from functools import cache
from pathlib import Path

from ..files import only_writer, sync_all, sync_folder, temporary_name
from .folders import SPLITS, check_name

SHOWN = 10  # names in a message, at most


def unpacked(archive: Path | str, raw: Path | str) -> Path:
    """The folder with the images of a tar archive (plain, gz, bz2 or xz), unpacked at the first call.

    Args:
        archive: holds ``<split>/<class>/<image>``, at its top or in one folder.
        raw: unpacked archives are kept in ``<raw>/unpacked``, by name, place, size and times of the archive; where that
            cannot be written, in a temporary folder of this process, with a warning.

    Raises:
        ValueError: damaged, no tar archive, or with members that would leave the folder, and nothing is kept of it; or
            neither at its top nor in one folder are there splits.
    """
    archive, status = Path(archive).resolve(), Path(archive).stat()
    check_name(archive)
    # The time of modification alone may be kept while the content changes, as by cp -p.
    key = f"{archive} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    identity = hashlib.sha256(key.encode()).hexdigest()[:16]
    target = Path(raw) / "unpacked" / f"{archive.name.split('.')[0]}-{identity}"
    if not target.is_dir():
        try:
            with only_writer(Path(raw), wait=True):
                if not target.is_dir():  # another process may have been faster
                    _unpack(archive, target)
        except OSError as error:
            warnings.warn(f"unpacked archives cannot be kept in {target.parent} ({error.strerror})", stacklevel=3)
            target = _unpacked_aside(archive, target.name)
    inside = _with_splits(target)
    if inside is None:
        there = ", ".join(ascii(entry.name) for entry in sorted(target.iterdir())[:SHOWN]) or "nothing"
        raise ValueError(f"{archive} holds no {' or '.join(SPLITS)} folder, at its top or in one folder there: {there}")
    return inside


@cache
def _unpacked_aside(archive: Path, name: str) -> Path:
    """The images of an archive in a folder of that name, which is gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="hrebasin-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _unpack(archive, folder / name)
    return folder / name


def _with_splits(folder: Path) -> Path | None:
    """The folder that holds splits: this one, or the only one in it that does; files beside it do not matter."""
    inside = [entry for entry in (folder, *folder.iterdir()) if any((entry / split).is_dir() for split in SPLITS)]
    return inside[0] if len(inside) == 1 or folder in inside else None


def _unpack(archive: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(target)
    temporary.mkdir()  # of an empty archive nothing else would
    try:
        with tarfile.open(archive) as file:
            file.extractall(temporary, filter="data")  # refuses links and paths that lead outside, and devices
            if file.fileobj.tell() <= file.offset:  # no block of zeros was read behind the last member
                raise EOFError("it ends before its end")
        sync_all()
        temporary.rename(target)
        sync_folder(target.parent)
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
