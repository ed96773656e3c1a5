"""Labelled images, kept as uint8 until a batch is used."""

import gzip
import hashlib
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from ..files import only_writer, replacing, sync_all, write_atomically
from .archives import unpacked
from .folders import SPLITS, check_name, classes_in, decode, images_in
from .order import in_order

FASHION = {  # digests of Fashion-MNIST as published
    "train": "9b189a7c73b043912538270e4f6f980e78663621c9f778f8c85bed3e5aead593",
    "test": "9c3a7d6b9fa257917c435c681a944734a78c037da29379bf398ecabcee0c9d10",
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images.

    Attributes:
        pixels: uint8 (image, channel, y, x).
        labels: int64 (image,), positions in ``classes``.
        classes: class names.
        source: what a reader should be told about the origin.
        digest: SHA-256 over pixels, labels and class names.
        origin: digest of the whole split that these are the first images of; ``digest`` if they are all.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    source: str
    digest: str = ""
    origin: str = ""

    def __post_init__(self):
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4 or not len(self.pixels):
            given = f"{self.pixels.dtype} {tuple(self.pixels.shape)}"
            raise ValueError(f"pixels must be uint8 (image, channel, y, x) of at least one image, got {given}")
        check_labels(self.labels, len(self.pixels), len(self.classes))
        if not self.digest:
            digest = hashlib.sha256("\n".join(self.classes).encode())
            digest.update(self.labels.cpu().numpy().astype("<i8").tobytes())
            digest.update(np.ascontiguousarray(self.pixels.cpu().numpy()))
            object.__setattr__(self, "digest", digest.hexdigest())
        object.__setattr__(self, "origin", self.origin or self.digest)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channel, y, x) of one image."""
        return tuple(self.pixels.shape[1:])

    def first(self, n: int) -> "Images":
        """The first ``n`` images; all orders that `load_images` gives mix the classes."""
        if not 1 <= n <= len(self):
            raise ValueError(f"{n} images asked for, {self.source} has {len(self)}")
        return Images(self.pixels[:n], self.labels[:n], self.classes, self.source, origin=self.origin)

    def to(self, device) -> "Images":
        """The same images on another device, still uint8."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel mean and standard deviation in pixel units (pixels in [0, 1]), from 256-bin counts."""
        values = torch.arange(256, dtype=torch.float64) / 255
        means, stds = [], []
        for channel in self.pixels.cpu().unbind(1):
            share = torch.bincount(channel.flatten(), minlength=256) / channel.numel()
            mean = (share * values).sum()
            means.append(mean.item())
            stds.append((share * (values - mean) ** 2).sum().sqrt().item())
        return tuple(means), tuple(stds)


def check_labels(labels: torch.Tensor, n_images: int, n_classes: int | None = None) -> None:
    """Raise ValueError unless labels are int64 (image,), one an image, from 0 to below the number of classes."""
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        given = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, torch.Tensor) else type(labels).__name__
        raise ValueError(f"labels must be int64 (image,), got {given}")
    if len(labels) != n_images:
        raise ValueError(f"{len(labels)} labels do not fit {n_images} images")
    if labels.min() < 0 or (n_classes is not None and labels.max() >= n_classes):
        within = f"{n_images} images" + ("" if n_classes is None else f" and {n_classes} classes")
        raise ValueError(f"labels from {labels.min()} to {labels.max()} do not fit {within}")


def load_images(source: str, split: str, *, root: Path | str = "data", at_most: int = 0) -> Images:
    """Load a data set.

    Args:
        source: ``"cifar10-sample"`` (shipped), ``"cifar10"`` or ``"fashion-mnist"`` (downloaded by torchvision,
            which checks the MD5; Fashion-MNIST is taken from Debian's package where it is installed), or a folder in
            ``ImageFolder`` layout, ``<source>/<split>/<class>/<image>``, or a tar archive of one.
        split: ``"train"`` or ``"test"``.
        root: the project's data folder; downloads and decoded folders are kept in ``<root>/raw``;
            what was decoded goes unkept, with a warning, where that cannot be written.
        at_most: keep only so many images, the first ones; 0: all.

    Raises:
        ValueError: unknown source or split, images that do not fit together or into 8 bits a channel without
            transparency, or a damaged sample. Damaged decoded images are decoded anew.
        FileNotFoundError: a folder or the sample is missing.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if at_most < 0:
        raise ValueError(f"at_most must not be negative, got {at_most}")
    root = Path(root)
    if source == "cifar10-sample":
        images = _load_sample(root / "cifar10-sample.nc", split)
    elif source in ("cifar10", "fashion-mnist"):
        images = _load_torchvision(source, split, root / "raw")
    elif (path := Path(source).expanduser()).is_dir():
        images = _load_folder(path, split, root / "raw")
    elif path.is_file():
        images = _load_folder(unpacked(path, root / "raw"), split, root / "raw")
    else:
        raise ValueError(
            f"unknown image source {source!r}: neither cifar10, cifar10-sample, fashion-mnist nor an existing folder "
            f"or archive; looked for {path.absolute()}"
        )
    return images.first(at_most) if 0 < at_most < len(images) else images


def _load_torchvision(source: str, split: str, raw: Path) -> Images:
    from torchvision import datasets

    dataset_class = {"cifar10": datasets.CIFAR10, "fashion-mnist": datasets.FashionMNIST}[source]
    try:
        try:
            dataset = dataset_class(raw, train=split == "train")
        except (RuntimeError, ValueError, AssertionError):  # not there yet, or a killed process left half of a file
            with only_writer(raw, wait=True):
                for path in raw.glob("FashionMNIST/raw/*-ubyte"):  # of these torchvision checks no sum
                    path.unlink()
                if source == "fashion-mnist":  # torchvision downloads only what is not there
                    for packed in sorted(DEBIAN.glob("*-ubyte.gz")):
                        place = raw / "FashionMNIST" / "raw" / packed.stem
                        write_atomically(place, gzip.decompress(packed.read_bytes()))
                dataset = dataset_class(raw, train=split == "train", download=True)
                sync_all()
    except (RuntimeError, OSError, EOFError, ValueError, AssertionError, zlib.error) as error:
        packed = f", also not from {DEBIAN}" if source == "fashion-mnist" and DEBIAN.is_dir() else ""
        raise ValueError(
            f"{source} could not be downloaded to {raw}{packed}: {error or 'a damaged file'}. "
            "Without internet, use cifar10-sample or a folder of images"
        ) from error
    pixels = torch.as_tensor(np.asarray(dataset.data))
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    name = {"cifar10": "CIFAR-10", "fashion-mnist": "Fashion-MNIST"}[source]
    labels = torch.as_tensor(np.asarray(dataset.targets), dtype=torch.int64)
    images = Images(pixels.contiguous(), labels, tuple(dataset.classes), name)
    if source == "fashion-mnist" and images.digest != FASHION[split]:  # of these torchvision checks no sum
        warnings.warn(
            f"the {split} images in {raw / 'FashionMNIST'} are not those of Fashion-MNIST: damaged? Delete the folder",
            stacklevel=3,
        )
    return images


def _load_sample(path: Path, split: str) -> Images:
    if not path.is_file():
        raise FileNotFoundError(f"the shipped sample is missing: {path}")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            part = dataset.sel(image=dataset.split == split).load()
        return Images(
            torch.from_numpy(part.pixels.values),
            torch.from_numpy(part.label.values.astype(np.int64)),
            tuple(dataset.attrs["classes"].split()),
            dataset.attrs["source"],
        )
    except Exception as error:  # of xarray and of what another data set lacks
        raise ValueError(f"{path} is damaged or not the shipped sample: {error}") from error


def _load_folder(folder: Path, split: str, raw: Path) -> Images:
    part = folder / split
    check_name(part)
    if not part.is_dir():
        raise FileNotFoundError(f"no folder {part}: expected {folder}/train/<class>/ and {folder}/test/<class>/")
    classes = classes_in(part)
    if len(classes) < 2:
        raise ValueError(f"{part} holds {len(classes)} class folders, at least 2 are needed")
    for other in (folder / name for name in SPLITS if (folder / name).is_dir()):
        if classes_in(other) != classes:  # the same label would mean another class
            raise ValueError(f"{part} has the classes {classes}, but {other} has {classes_in(other)}")
    by_name = [(path, number) for number, name in enumerate(classes) for path in images_in(part / name)]
    files, original = in_order(by_name)
    listing = hashlib.sha256(str(part.resolve()).encode())
    for path, number in files:
        status = path.stat()
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"  # cp -p keeps the first of other content
        listing.update(f"{classes[number]}/{path.name} {status.st_size} {times}\n".encode())
    cache = raw / "decoded" / f"{folder.resolve().name}-{split}-{listing.hexdigest()[:16]}.npy"
    if (pixels := _decoded(cache, len(files))) is None:
        pixels = _decoded_anew([path for path, _ in files], cache, raw)
    labels = torch.tensor([number for _, number in files])
    source = f"images of {folder.resolve().name}{'' if original else ', shuffled'}"
    return Images(torch.from_numpy(pixels), labels, classes, source)


def _decoded_anew(paths: list[Path], cache: Path, raw: Path) -> np.ndarray:
    """Pixels of images, kept for the next time where that can be written; nobody needs them kept."""
    pixels = None
    try:
        with only_writer(raw, wait=True):
            if (pixels := _decoded(cache, len(paths))) is None:  # another process may have been faster
                if cache.exists():
                    warnings.warn(f"the decoded images in {cache} are damaged and made anew", stacklevel=4)
                pixels = decode(paths)
                with replacing(cache) as temporary, temporary.open("wb") as stream:
                    np.save(stream, pixels, allow_pickle=False)
    except OSError as error:
        warnings.warn(f"decoded images cannot be kept in {cache.parent} ({error.strerror or error})", stacklevel=4)
    return decode(paths) if pixels is None else pixels


def _decoded(cache: Path, n: int) -> np.ndarray | None:
    """The ``n`` images that were decoded before; None if they were not, or what is there is damaged."""
    try:
        pixels = np.load(cache, allow_pickle=False)
        fit = pixels.dtype == np.uint8 and pixels.ndim == 4 and len(pixels) == n
    except Exception:  # NumPy raises whatever broken content leads it into
        return None
    return pixels if fit else None
