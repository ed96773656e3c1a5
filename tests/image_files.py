"""Files of images and archives of files, as users may have them."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def image(shape=(4, 5, 3), dtype=np.uint8, *, value=None, form="png", mode=None, **options) -> bytes:
    """A file of an image of noise, or of one value."""
    pixels = np.random.default_rng(0).integers(0, 256, shape) if value is None else np.full(shape, value)
    made, stream = Image.fromarray(pixels.astype(dtype)), io.BytesIO()
    made.convert(mode or made.mode).save(stream, form, **options)
    return stream.getvalue()


def rewritten(path: Path, content: bytes) -> None:
    """Write other content of the same size and time of modification, as by ``cp -p``."""
    before = path.stat()
    path.write_bytes(content)
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # a coarse clock
        path.touch()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar archive of files by name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()
