import gzip
import hashlib
import os
import pickle
import struct
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import ANY

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import CIFAR10, FashionMNIST

import hrebasin.images.sources
from hrebasin.files import project_root
from hrebasin.images.sources import Images, load_images
from image_files import image, rewritten, tar

DATA = project_root() / "data"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGESTS = {
    "train": "c624749912f9c54c15bec8c0a09524e33e8280de1b6c2e9181b15f5ee4941cee",
    "test": "1b8b07cd13550fbd479d2d8e240286821ec44a47b7ff78f382554108f47bf56b",
}


def random_pixels(n, shape=(4, 5, 3), seed=0):
    """uint8 (image, y, x, channel), or (image, y, x) for a shape of two."""
    return np.random.default_rng(seed).integers(0, 256, size=(n, *shape), dtype=np.uint8)


def in_our_order(pixels):
    return torch.from_numpy(pixels if pixels.ndim == 4 else pixels[..., None]).permute(0, 3, 1, 2)


def test_statistics_equal_numpy(train_images):
    values = train_images.pixels.numpy().astype(np.float64) / 255
    mean, std = train_images.statistics()
    np.testing.assert_allclose(mean, values.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, values.std(axis=(0, 2, 3)), rtol=1e-6)


def test_the_digest_follows_pixels_labels_and_classes_only():
    def of(source="test", **changes):
        parts = {"pixels": in_our_order(random_pixels(6)), "labels": torch.arange(6) % 2, "classes": ("a", "b")}
        return Images(**parts | changes, source=source)

    images = of()
    channels_last = images.pixels.contiguous(memory_format=torch.channels_last)
    assert of(source="elsewhere").digest == of(pixels=channels_last).digest == images.to("cpu").digest == images.digest
    others = [of(pixels=255 - images.pixels), of(labels=1 - images.labels), of(classes=("a", "c")), images.first(4)]
    assert len({images.digest, *(other.digest for other in others)}) == 5
    assert images.first(6).digest == images.digest
    assert torch.equal(others[-1].pixels, images.pixels[:4])
    assert torch.equal(others[-1].labels, images.labels[:4])


# ---- a folder of images


def write_folder(folder, pixels, labels, names, *, split="train", classes=("cat", "dog"), suffix=".png"):
    for colours, label, name in zip(pixels, labels, names, strict=True):
        path = folder / split / classes[label] / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).save(path)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Eight colour images of two classes, named by their place in an original order."""
    return write_folder(tmp_path / "set", random_pixels(8), [0, 1, 1, 0, 1, 0, 0, 1], range(8))


def load(folder, split="train"):
    return load_images(str(folder), split, root=folder.parent / "data")


@pytest.mark.parametrize(("name", "shape"), [("{}", (4, 5, 3)), ("{:05d}", (4, 5))])
def test_numbered_files_return_to_their_original_order(tmp_path, name, shape):
    pixels, labels = random_pixels(12, shape), np.random.default_rng(1).permutation(np.arange(12) % 2)
    images = load(write_folder(tmp_path / "set", pixels, labels, [name.format(number) for number in range(12)]))
    assert torch.equal(images.pixels, in_our_order(pixels))
    assert images.labels.tolist() == labels.tolist()
    assert (images.classes, images.source) == (("cat", "dog"), "images of set")


NO_ORDER = [[f"image-{n}" for n in range(40)], [*range(20), *range(20)], [f"{n:05}" for n in range(40)]]


@pytest.mark.parametrize("names", NO_ORDER, ids=["words", "twice", "class by class"])
def test_names_that_are_no_order_are_mixed_always_alike_and_keep_their_labels(tmp_path, names):
    pixels, labels = random_pixels(40), np.repeat([0, 1], 20)
    images = load(write_folder(tmp_path / "set", pixels, labels, names))
    assert images.source == "images of set, shuffled"
    assert 5 <= images.labels[:20].sum() <= 15  # 20 draws without replacement from 20 + 20: 99.9 %
    label_of = {image.tobytes(): label for image, label in zip(pixels, labels, strict=True)}
    found = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    assert [label_of.pop(image.tobytes()) for image in found] == images.labels.tolist()
    assert not label_of
    assert images.digest == load(tmp_path / "set").digest


def test_only_changed_and_added_files_are_decoded_again_even_if_size_and_time_stay(tmp_path, monkeypatch):
    pixels = random_pixels(4)
    folder = write_folder(tmp_path / "set", pixels, [0, 1, 1, 0], range(4), suffix=".bmp")
    first = load(folder)
    with monkeypatch.context() as patch:
        patch.setattr(hrebasin.images.sources, "decode", lambda paths: pytest.fail("decoded again"))
        assert load(folder).digest == first.digest
    pixels[1] = 9
    rewritten(folder / "train" / "dog" / "1.bmp", image(value=9, form="bmp"))
    assert torch.equal(load(folder).pixels, in_our_order(pixels))
    assert len(load(write_folder(folder, random_pixels(1), [0], [8]))) == 5
    write_folder(folder, random_pixels(2, seed=5), [0, 1], range(2), split="test")  # with a cache of its own
    assert torch.equal(load(folder, "test").pixels, in_our_order(random_pixels(2, seed=5)))


DAMAGES = {
    "cut": lambda content: content[:-1],
    "too few": lambda content: content.replace(b"(8, 3, 4, 5)", b"(7, 3, 4, 5)"),
    "signed": lambda content: content.replace(b"|u1", b"|i1"),
    "a zip": lambda content: b"PK" + content,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_made_anew(folder, damage):
    digest = load(folder).digest
    (cache,) = (folder.parent / "data" / "raw" / "decoded").iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))
    with pytest.warns(UserWarning, match=f"the decoded images in {cache} are damaged and made anew"):
        assert load(folder).digest == digest
    assert cache.read_bytes() == whole


def test_images_are_decoded_where_nothing_can_be_kept(folder, tmp_path):
    digest, nowhere = load(folder).digest, tmp_path / "nowhere"
    nowhere.mkdir()
    (nowhere / "raw").write_text("no folder")
    with pytest.warns(UserWarning, match=f"decoded images cannot be kept in {nowhere}/raw/decoded") as told:
        assert load_images(str(folder), "train", root=nowhere).digest == digest
    assert len(told) == 1
    files = {f"set/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.png")}
    (tmp_path / "set.tar").write_bytes(tar(files))
    with (
        pytest.warns(UserWarning, match="decoded images cannot be kept"),
        pytest.warns(UserWarning, match=f"unpacked archives cannot be kept in {nowhere}/raw/unpacked"),
    ):
        assert load_images(str(tmp_path / "set.tar"), "train", root=nowhere).digest == digest


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_damaged_image_is_named_or_decoded(tmp_path_factory, place, value):
    folder = write_folder(tmp_path_factory.mktemp("damaged") / "set", random_pixels(2), [0, 1], range(2))
    (path,) = folder.glob("train/*/1.png")
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = value
    path.write_bytes(bytes(content))
    try:
        assert len(load(folder)) == 2
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017 - only the failures are asked for the name


OPAQUE = {"transparency": bytes([255] * 256)}
MODES = [("RGBA", ".png", {}), ("P", ".png", OPAQUE), ("P", ".bmp", {}), ("CMYK", ".tif", {})]


@pytest.mark.parametrize(("mode", "suffix", "options"), MODES)
def test_opaque_images_of_any_mode_become_colour(folder, mode, suffix, options):
    pixels = random_pixels(1, seed=9)
    colours = Image.fromarray(pixels[0])
    made = colours.quantize() if mode == "P" else colours.convert(mode)  # 20 pixels: a palette holds all colours
    (folder / "train" / "cat" / "3.png").unlink()
    made.save(folder / "train" / "cat" / f"3{suffix}", **options)
    assert torch.equal(load(folder).pixels[3], in_our_order(pixels)[0])


def test_hidden_and_other_files_are_no_images(folder):
    for name in ("README.txt", "../labels.csv", ".3.png", "Thumbs.db", ".ipynb_checkpoints/3.png"):
        path = folder / "train" / "cat" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no image")
    assert len(load(folder)) == 8


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="names there are text")
@pytest.mark.parametrize("place", ["train/cat/\udcff.png", "train/\udcff/1.png", "train/c\nat/1.png"])
def test_names_that_are_no_text_are_refused_by_name(folder, place):
    path = folder / place
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(random_pixels(1)[0]).save(path, "png")
    reason = "holds control characters" if "\n" in place else "is not valid text in UTF-8"
    with pytest.raises(ValueError, match=rf"train.*(\\udcff|\\n).*{reason}"):
        load(folder)
    other = folder.rename(folder.with_name("\udcfe"))
    with pytest.raises(ValueError, match=r"\\udcfe.* is not valid text"):
        load(other)


# ---- torchvision, from stand-ins in the published formats


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder that is served over HTTP on this machine alone: (folder, address)."""
    (tmp_path / "server").mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "server")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield tmp_path / "server", f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()


@pytest.fixture
def cifar10(server, monkeypatch):
    """Ten images a batch in the archive's format, behind CIFAR10's own download; returns rows and labels."""
    rng, rows, labels, contents = np.random.default_rng(0), {}, {}, {}
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        rows[name], labels[name] = rng.integers(0, 256, size=(10, 3072), dtype=np.uint8), rng.permutation(10).tolist()
        contents[name] = pickle.dumps({"data": rows[name], "labels": labels[name]}, protocol=2)
    contents["batches.meta"] = pickle.dumps({"label_names": list(CLASSES)}, protocol=2)
    archive = tar({f"cifar-10-batches-py/{name}": content for name, content in contents.items()}, "w:gz")
    (server[0] / CIFAR10.filename).write_bytes(archive)
    monkeypatch.setattr(CIFAR10, "url", server[1] + CIFAR10.filename)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    for batches in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, batches, [[name, md5(contents[name])] for name, _ in getattr(CIFAR10, batches)])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(contents["batches.meta"])})
    return rows, labels


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10_is_downloaded_once_and_laid_out(cifar10, server, tmp_path, split):
    rows, labels = cifar10
    names = [name for name in rows if (name == "test_batch") == (split == "test")]
    images = load_images("cifar10", split, root=tmp_path / "data")
    expected = np.concatenate([rows[name] for name in names]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(images.pixels.numpy(), expected)
    assert images.labels.tolist() == sum((labels[name] for name in names), [])
    assert (images.classes, images.source) == (CLASSES, "CIFAR-10")
    (server[0] / CIFAR10.filename).unlink()
    assert load_images("cifar10", split, root=tmp_path / "data").digest == images.digest


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.usefixtures("cifar10")
def test_damaged_cifar10_files_are_found(server, tmp_path):
    root, archive = tmp_path / "data", server[0] / CIFAR10.filename
    load_images("cifar10", "train", root=root)
    flip_a_byte(root / "raw" / "cifar-10-batches-py" / "data_batch_3")
    (root / "raw" / CIFAR10.filename).unlink()  # else it would be unpacked again
    flip_a_byte(archive)
    with pytest.raises(ValueError, match="cifar10 could not be downloaded to .*corrupted"):
        load_images("cifar10", "train", root=root)
    archive.unlink()
    with pytest.raises(ValueError, match="cifar10 could not be downloaded to .*raw.*404"):
        load_images("cifar10", "train", root=tmp_path / "elsewhere")


@pytest.fixture
def fashion_mnist(server, monkeypatch):
    """Images and labels in the IDX format behind FashionMNIST's own download."""
    rng, arrays, resources = np.random.default_rng(0), {}, []
    for split, n in (("train", 12), ("t10k", 7)):
        pixels, labels = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)
        arrays[split] = pixels, labels
        for array, name in ((pixels, f"{split}-images-idx3-ubyte"), (labels, f"{split}-labels-idx1-ubyte")):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            content = gzip.compress(header + array.tobytes())
            (server[0] / f"{name}.gz").write_bytes(content)
            resources.append((f"{name}.gz", md5(content)))
    monkeypatch.setattr(FashionMNIST, "mirrors", [server[1]])
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    monkeypatch.setattr(hrebasin.images.sources, "DEBIAN", server[0] / "no package")
    monkeypatch.setattr(hrebasin.images.sources, "FASHION", dict.fromkeys(("train", "test"), ANY))
    return arrays


def test_fashion_mnist_is_downloaded_and_laid_out_and_other_images_are_told(fashion_mnist, tmp_path, monkeypatch):
    for split, name in (("train", "train"), ("test", "t10k")):
        pixels, labels = fashion_mnist[name]
        images = load_images("fashion-mnist", split, root=tmp_path / "data")
        np.testing.assert_array_equal(images.pixels.numpy(), pixels[:, None])
        assert images.labels.tolist() == labels.tolist()
        assert (len(images.classes), images.source) == (10, "Fashion-MNIST")
    monkeypatch.setattr(hrebasin.images.sources, "FASHION", {"test": "0" * 64})
    with pytest.warns(UserWarning, match="the test images in .*FashionMNIST are not those of Fashion-MNIST"):
        load_images("fashion-mnist", "test", root=tmp_path / "data")


def test_fashion_mnist_of_debian_s_package_needs_no_download(fashion_mnist, server, tmp_path, monkeypatch):
    monkeypatch.setattr(hrebasin.images.sources, "DEBIAN", server[0].rename(tmp_path / "package"))
    images = load_images("fashion-mnist", "test", root=tmp_path / "data")
    np.testing.assert_array_equal(images.pixels.numpy(), fashion_mnist["t10k"][0][:, None])
    (damaged := tmp_path / "package" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=rf"fashion-mnist could not be .*{damaged.parent}: Not a gzipped"):
        load_images("fashion-mnist", "test", root=tmp_path / "elsewhere")


@pytest.mark.usefixtures("fashion_mnist")
@pytest.mark.parametrize("size", [0, 12])
def test_fashion_mnist_files_that_were_cut_are_refused_or_unpacked_again(server, tmp_path, size):
    whole = load_images("fashion-mnist", "train", root=tmp_path / "data")
    path = server[0] / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="fashion-mnist could not be downloaded to .*train-labels"):
        load_images("fashion-mnist", "train", root=tmp_path / "elsewhere")
    for kind in ("images-idx3", "labels-idx1"):
        path = tmp_path / "data" / "raw" / "FashionMNIST" / "raw" / f"train-{kind}-ubyte"
        path.write_bytes(path.read_bytes()[:size])
    for archive in server[0].iterdir():
        archive.unlink()  # the download is there
    assert load_images("fashion-mnist", "train", root=tmp_path / "data").digest == whole.digest


# ---- the shipped sample


@pytest.mark.parametrize(("split", "n", "of"), [("train", 4000, 50_000), ("test", 1000, 10_000)])
def test_the_shipped_sample_is_as_published(split, n, of):
    images = load_images("cifar10-sample", split, root=DATA)
    assert (len(images), images.shape, images.classes) == (n, (3, 32, 32), CLASSES)
    assert images.digest == DIGESTS[split]
    counts = images.labels.bincount()
    assert counts.tolist() == [400] * 10 if split == "train" else 80 <= counts.min() <= counts.max() <= 120
    # of all 50,000 training images, widely published; a sample of 4,000 lies within 0.01, one of 1,000 within 0.02
    for found, expected in zip(images.statistics(), ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.01 if split == "train" else 0.02)
    with xr.open_dataset(DATA / "cifar10-sample.nc", engine="h5netcdf") as dataset:
        index = dataset.original_index.values[dataset.split.values == split]
    assert (np.diff(index) > 0).all(), "the original order"
    assert 0 <= index[0] < index[-1] < of
    assert load_images("cifar10-sample", split, root=DATA, at_most=30).digest == images.first(30).digest
    assert load_images("cifar10-sample", split, root=DATA, at_most=5000).digest == images.digest


@pytest.mark.parametrize("lost", [0, 0.999, "split", "pixels", "label"])
def test_a_damaged_sample_and_another_data_set_are_named(tmp_path, lost):
    path, content = tmp_path / "cifar10-sample.nc", (DATA / "cifar10-sample.nc").read_bytes()
    if isinstance(lost, str):
        with xr.open_dataset(DATA / "cifar10-sample.nc", engine="h5netcdf") as dataset:
            dataset.isel(image=slice(3)).drop_vars(lost).to_netcdf(path, engine="h5netcdf")
    else:
        path.write_bytes(content[: int(lost * len(content))])
    with pytest.raises(ValueError, match=r"cifar10-sample\.nc is damaged or not the shipped sample: "):
        load_images("cifar10-sample", "test", root=tmp_path)
