"""Files of images and archives of files, as users may have them."""

import io
import tarfile

import numpy as np
from PIL import Image


def image(shape=(4, 5, 3), dtype=np.uint8, *, value=None, form="png", mode=None, **options) -> bytes:
    """A file of an image of noise, or of one value."""
    pixels = np.random.default_rng(0).integers(0, 256, shape) if value is None else np.full(shape, value)
    made, stream = Image.fromarray(pixels.astype(dtype)), io.BytesIO()
    made.convert(mode or made.mode).save(stream, form, **options)
    return stream.getvalue()


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar archive of files by name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()
