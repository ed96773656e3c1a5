"""Files are read without running what is in them, unpacked without leaving their folder, and made again when stale."""

import io
import os
import pickle
import subprocess
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from hrebasin.bank import Bank
from hrebasin.files import project_root
from hrebasin.images.archives import unpacked
from hrebasin.images.sources import load_images
from hrebasin.study import records
from hrebasin.study.settings import load_setting
from hrebasin.training.train import train
from hrebasin.weight_files import read_weights


class Bomb:
    """Makes a folder as soon as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def bomb(tmp_path):
    """Pickles that would make a folder, which must not appear: plain, in .npy, in torch's format."""
    exploded = tmp_path / "exploded"
    pickle.loads(pickle.dumps(Bomb(exploded)))
    exploded.rmdir()  # the bomb works
    npy = io.BytesIO()
    np.save(npy, np.array([Bomb(exploded)], dtype=object), allow_pickle=True)
    zipped = io.BytesIO()
    torch.save({"fc1.weight": Bomb(exploded)}, zipped)
    yield {"pickle": pickle.dumps(Bomb(exploded)), "npy": npy.getvalue(), "torch": zipped.getvalue()}
    assert not exploded.exists()


def load(source, folder):
    return load_images(str(source), "train", root=folder)


READERS = {
    "bank.safetensors": (Bank.load, "is not a readable safetensors file"),
    "bank.pt": (
        read_weights,
        "(holds .*mkdir, which only running code could make|is damaged, or holds more than tensors)",
    ),
    "merge.nc": (lambda path: records.read(path, stage="merge"), "is not a readable netCDF file"),
    "set/train/dog/0.png": (lambda path: load(path.parents[2], path.parents[2]), "is not a readable image"),
    "set.tar": (lambda path: load(path, path.parent), "cannot be unpacked"),
    "cifar10-sample.nc": (lambda path: load("cifar10-sample", path.parent), "is damaged or not the shipped sample"),
}


@pytest.fixture
def folder(tmp_path):
    """A folder of images of two classes."""
    for name in ("cat", "dog"):
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "set" / "train" / name / "0.png")
    return tmp_path / "set"


@pytest.mark.parametrize("kind", ["pickle", "npy", "torch"])
@pytest.mark.parametrize("name", READERS)
def test_a_bomb_as_weights_data_set_or_images_is_refused(bomb, kind, name, folder, tmp_path):
    read, reason = READERS[name]
    (tmp_path / name).write_bytes(bomb[kind])
    with pytest.raises(ValueError, match=rf"{name} {reason}"):
        read(tmp_path / name)


def test_a_bomb_among_decoded_images_does_not_explode(bomb, folder, tmp_path):
    digest = load(folder, tmp_path).digest
    (cache,) = (tmp_path / "raw" / "decoded").iterdir()
    cache.write_bytes(bomb["npy"])
    with pytest.warns(UserWarning, match="are damaged and made anew"):
        assert load(folder, tmp_path).digest == digest


def test_a_bomb_among_the_batches_of_cifar10_does_not_explode(bomb, tmp_path, monkeypatch):
    """They are pickles; torchvision opens them only if their MD5 sums are the published ones."""
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/nothing-listens-here")
    batches = tmp_path / "raw" / CIFAR10.base_folder
    batches.mkdir(parents=True)
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], None)]:
        (batches / name).write_bytes(bomb["pickle"])
    with pytest.raises(ValueError, match="cifar10 could not be downloaded"):
        load_images("cifar10", "train", root=tmp_path)


def test_a_bomb_as_checkpoint_does_not_explode(bomb, shallow, train_images, recipe, tmp_path):
    whole = train(shallow, train_images, [0], recipe, checkpoints=tmp_path / "checkpoints")
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    for damage in (*bomb.values(), checkpoint.read_bytes()[:-100]):
        checkpoint.write_bytes(damage)
        with pytest.warns(UserWarning, match=f"{checkpoint.name} .*is damaged and not used"):
            again = train(shallow, train_images, [0], recipe, checkpoints=tmp_path / "checkpoints")
        assert torch.equal(again.tensors["fc2.weight"], whole.tensors["fc2.weight"])


def test_a_bomb_as_setting_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"dataset: !!python/object/apply:os.mkdir ['{tmp_path / 'exploded'}']\n")
    with pytest.raises(ValueError, match=r"mine\.yaml is not valid YAML"):
        load_setting(path)
    assert not (tmp_path / "exploded").exists()


# ---- archives


def entry(name, kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def archive(path, *members):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w") as file:
        for member in members:
            file.addfile(member)
    return path


ESCAPES = {
    "parent": [entry("../outside.png")],
    "parent inside": [entry("train/../../outside.png")],
    "link": [entry("train/cat", tarfile.SYMTYPE, "/etc")],
    "relative link": [entry("train/cat", tarfile.SYMTYPE, "../../../..")],
    "hard link": [entry("train/cat.png", tarfile.LNKTYPE, "../../../../secret")],
    "through a link": [entry("a", tarfile.SYMTYPE, ".."), entry("a/../../outside.png")],
    "device": [entry("train/null", tarfile.CHRTYPE)],
}


@pytest.mark.parametrize("members", ESCAPES.values(), ids=ESCAPES)
def test_nothing_leaves_the_folder_of_an_archive(tmp_path, members):
    path = archive(tmp_path / "in" / "set.tar.xz", *members)
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(ValueError, match=r"set\.tar\.xz cannot be unpacked: "):
        unpacked(path, tmp_path / "raw")
    assert sorted(p.name for p in tmp_path.rglob("*") if not p.is_dir()) == [".lock", "secret", "set.tar.xz"]
    assert not list((tmp_path / "raw" / "unpacked").iterdir())


def test_an_absolute_path_stays_inside(tmp_path):
    path = archive(tmp_path / "set.tar", entry(f"{tmp_path}/outside.png"))
    with pytest.raises(ValueError, match=r"set\.tar holds no train or test folder, at its top or in one folder there"):
        unpacked(path, tmp_path / "raw")
    assert not (tmp_path / "outside.png").exists()
    assert [p.name for p in (tmp_path / "raw").rglob("*.png")] == ["outside.png"]


def test_git_keeps_files_byte_for_byte():
    asked = ["git", "check-attr", "text", "--", "figures/index.html", "data/published/SHA256SUMS", "README.md"]
    told = subprocess.run(asked, cwd=project_root(), capture_output=True, encoding="utf-8", check=False)
    if told.returncode:
        pytest.skip("this is no git repository")
    assert [line.rpartition(" ")[2] for line in told.stdout.splitlines()] == ["unset"] * 3
