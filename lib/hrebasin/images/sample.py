"""How the shipped sample of CIFAR-10 was made."""

from pathlib import Path

import numpy as np
import xarray as xr

from ..files import replacing


def write_sample(subset: Path | str, path: Path | str, *, n_train: int = 4000, n_test: int = 1000) -> None:
    """Make the shipped sample from a subset of the original CIFAR-10.

    Each split takes as many images a class as the source allows, evenly, and keeps the original order.

    Args:
        subset: ``.npz`` with uint8 ``{train,test}_images`` (image, y, x, channel), ``_labels`` and ``_index``
            (place in the original data set).
        path: the netCDF file to write.
        n_train, n_test: number of images; the source must hold as many.
    """
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    parts = []
    with np.load(subset, allow_pickle=False) as arrays:
        for split, n in (("train", n_train), ("test", n_test)):
            labels, index = arrays[f"{split}_labels"], arrays[f"{split}_index"]
            order = np.argsort(index)
            chosen = order[_balanced(labels[order], n)]
            parts.append((split, arrays[f"{split}_images"][chosen], labels[chosen], index[chosen]))
    dataset = xr.Dataset(
        {
            "pixels": (
                ("image", "channel", "y", "x"),
                np.concatenate([images for _, images, _, _ in parts]).transpose(0, 3, 1, 2),
                {"long_name": "pixel value", "units": "1/255"},
            ),
            "label": (
                "image",
                np.concatenate([labels for _, _, labels, _ in parts]).astype(np.int8),
                {"long_name": "class, a position in the attribute `classes`", "units": "1"},
            ),
        },
        coords={
            "split": (
                "image",
                np.concatenate([np.full(len(labels), split, dtype=object) for split, _, labels, _ in parts]),
                {"long_name": "part of the original data set", "units": "1"},
            ),
            "original_index": (
                "image",
                np.concatenate([index for _, _, _, index in parts]).astype(np.int32),
                {"long_name": "place in the original order of that part", "units": "1"},
            ),
            "channel": ("channel", np.array(["red", "green", "blue"], dtype=object)),
        },
        attrs={
            "title": f"CIFAR-10 sample: {n_train} training and {n_test} test images",
            "source": f"CIFAR-10, sample of {n_train} training and {n_test} test images",
            "classes": names,
            "references": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        },
    )
    encoding = {"pixels": {"zlib": True, "complevel": 9, "chunksizes": (500, 1, 32, 32)}}
    with replacing(Path(path)) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def _balanced(labels: np.ndarray, n: int) -> np.ndarray:
    """Positions of ``n`` labels with class counts as even as possible, in order."""
    classes, available = np.unique(labels, return_counts=True)
    if n > len(labels):
        raise ValueError(f"{n} images asked for, the source has {len(labels)}")
    take = np.zeros_like(available)
    while take.sum() < n:
        open_classes = np.flatnonzero(take < available)
        fewest = open_classes[take[open_classes] == take[open_classes].min()]
        take[fewest[: n - take.sum()]] += 1
    chosen = [np.flatnonzero(labels == name)[:count] for name, count in zip(classes, take, strict=True)]
    return np.sort(np.concatenate(chosen))
