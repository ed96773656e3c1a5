"""Image files: which of them a class folder holds, and their pixels, as they are or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

BITS_PER_SAMPLE = 258  # a tag of TIFF
SPLITS = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")
OTHER_SUFFIXES = (
    ".gif", ".apng", ".avif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jxl", ".mpo", ".pbm", ".pcx",
    ".pnm", ".psd", ".svg", ".tga",
)  # fmt: skip


def classes_in(part: Path) -> tuple[str, ...]:
    """Names of the class folders of a split, sorted; hidden ones are left out.

    Raises:
        ValueError: a name that is no text of one line.
    """
    names = sorted(entry.name for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for name in names:
        check_name(part / name)
        if any(ord(letter) < ord(" ") for letter in name):
            raise ValueError(f"the name of the class folder {ascii(str(part / name))} holds control characters")
    return tuple(names)


def check_name(path: Path) -> None:
    """Raise ValueError where a path is no valid text, which data sets could not tell."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{ascii(str(path))} is not valid text in UTF-8: rename it") from None


def images_in(folder: Path) -> list[Path]:
    """Paths of the images of a class, by name; hidden files, and files that are no images by name, are left out.

    Raises:
        ValueError: no images, images of another type, a name that is no text, or a folder, whose images torchvision
            would take.
    """
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in entries:
        check_name(path)
        if path.is_dir():
            raise ValueError(f"{path} is a folder in a class folder, which must hold images only")
        if not path.is_file():
            raise ValueError(f"{path} is neither a file nor a link to one")
        if path.suffix.lower() in OTHER_SUFFIXES:
            raise ValueError(f"{path} has the type {path.suffix}: images must be {', '.join(SUFFIXES)}")
    paths = [path for path in entries if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise ValueError(f"class folder {folder} holds no image ({', '.join(SUFFIXES)})")
    return paths


def decode(paths: list[Path]) -> np.ndarray:
    """Pixels of images of one size, as uint8 (image, channel, y, x).

    Grey images have one channel; all others three: CMYK, palettes, black and white and an alpha channel that is opaque
    everywhere become RGB.

    Raises:
        ValueError: not readable, of more than 8 bits a channel, of several frames, transparent somewhere, or of another
            size or number of channels than the first.
    """
    first = _pixels(paths[0])
    decoded = np.empty((len(paths), *first.shape), dtype=np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL while it decodes
        for position, pixels in enumerate(pool.map(_pixels, paths)):
            if pixels.shape != first.shape:
                raise ValueError(
                    f"{paths[position]} is (channel, y, x) = {pixels.shape}, but {paths[0]} is {first.shape}: "
                    "all images must have one size and one number of channels"
                )
            decoded[position] = pixels
    return decoded


def _pixels(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            unfit = _unfit(image)
            image.info.pop("transparency", None)  # of which Pillow warns when it converts
            pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except Exception as error:  # Pillow raises whatever broken content leads it into
        raise ValueError(f"{path} is not a readable image: {error}") from error
    if unfit:
        raise ValueError(f"{path} {unfit}")
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _unfit(image: Image.Image) -> str:
    """What of an image would be lost in 8 bits a channel and three channels; "" if nothing."""
    if image.mode[0] in "IF" or _is_cut_to_8_bits(image):
        return f"has mode {image.mode} of more than 8 bits: images must have 8 bits a channel"
    if (frames := getattr(image, "n_frames", 1)) > 1:
        return f"has {frames} frames: images must have one"
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        return "is transparent somewhere: images must be opaque"
    return ""


def _is_cut_to_8_bits(image: Image.Image) -> bool:
    """Whether Pillow, which has no mode for colours of 16 bits, will drop half of them."""
    if max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))) > 8:
        return True
    return any(
        (";16" in str(args) and image.format != "BMP")
        or (codec.startswith("ppm") and image.mode == "RGB" and args[1] > 255)
        for codec, _, _, args in image.tile
    )
