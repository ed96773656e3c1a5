"""Archives of images, unpacked once into a folder that nothing in them can leave."""

import hashlib
import lzma
import shutil
import tarfile
import zlib
from pathlib import Path

from ..files import only_writer, temporary_name


def unpacked(archive: Path | str, raw: Path | str) -> Path:
    """The folder with the images of a tar archive (plain, gz, bz2 or xz), unpacked at the first call.

    Args:
        archive: holds ``<split>/<class>/<image>``, at its top or in one folder.
        raw: unpacked archives are kept in ``<raw>/unpacked``, by name, place, size and times of the archive.

    Raises:
        ValueError: damaged, no tar archive, or with members that would leave the folder; nothing is kept of it.
    """
    archive, status = Path(archive).resolve(), Path(archive).stat()
    # The time of modification alone may be kept while the content changes, as by cp -p.
    key = f"{archive} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    identity = hashlib.sha256(key.encode()).hexdigest()[:16]
    target = Path(raw) / "unpacked" / f"{archive.name.split('.')[0]}-{identity}"
    if not target.is_dir():
        with only_writer(Path(raw), wait=True):
            if not target.is_dir():  # another process may have been faster
                _unpack(archive, target)
    inside = list(target.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and inside[0].name != "train" else target


def _unpack(archive: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(target)
    try:
        with tarfile.open(archive) as file:
            file.extractall(temporary, filter="data")  # refuses links and paths that lead outside, and devices
        temporary.rename(target)
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
