"""Files are read without running what is in them, unpacked without leaving their folder, and made again when stale."""

import ast
import io
import os
import pickle
import tarfile
from pathlib import Path

import nbformat
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
from hrebasin.study.settings import load_profile
from hrebasin.training.train import train

ROOT = project_root()
SOURCES = sorted([*(ROOT / "lib").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb"), ROOT / "Snakefile"])
READERS = {
    "torch": {"load"},
    "numpy": {"load"},
    "yaml": {"load", "load_all", "full_load", "unsafe_load", "Loader", "UnsafeLoader"},
    "pandas": {"read_pickle"},
    "shutil": {"unpack_archive"},
    "builtins": {"eval", "exec", "compile"},
}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


# ---- what the code calls


def trees(path):
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        return [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    if path.name == "Snakefile":  # not Python, but its imports are
        lines = path.read_text().splitlines()
        return [ast.parse("\n".join(line for line in lines if line.startswith(("from ", "import "))))]
    return [ast.parse(path.read_text())]


def unsafe_calls(tree):
    """Names of what could run code out of a file."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            yield from UNSAFE_MODULES.intersection(name.split(".")[0] for name in names)
        if isinstance(node, ast.ImportFrom) and node.module in READERS:  # below, calls are told by these modules' names
            yield from READERS[node.module].intersection(alias.name for alias in node.names)
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in READERS and a.asname not in (None, "np"))
        if isinstance(node, ast.Call):
            name, options = ast.unparse(node.func), {option.arg: ast.unparse(option.value) for option in node.keywords}
            if name in ("eval", "exec", "compile", "read_pickle", "pd.read_pickle", "unpack_archive"):
                yield name
            if name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
                yield name
            if name == "torch.load" and options.get("weights_only") != "True":
                yield name
            if name.startswith("yaml.") and name not in ("yaml.safe_load", "yaml.safe_dump"):
                yield name
            if name.split(".")[-1] in ("extract", "extractall") and options.get("filter") != "'data'":
                yield name


# Of the library, atomic; safetensors' save, which gives bytes; the text of a syntax tree
WHOLE = ("bank.save", "kept.save", "save", "ast.dump")


def writes_in_place(tree):
    """Calls that write to a file under its last name, where a reader could see a part of it."""
    whole = [
        call
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and any(ast.unparse(item).startswith("replacing(") for item in node.items)
        for call in ast.walk(node)
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or node in whole:
            continue
        name, values = ast.unparse(node.func), [*node.args, *(option.value for option in node.keywords)]
        given = [ast.unparse(value) for value in values]
        method = name.split(".")[-1]
        writes = method in ("savefig", "save", "save_file", "imsave", "to_netcdf", "write_text", "write_bytes", "dump")
        mode = "".join(text for text in given if set(text) <= set("'rwaxbt+"))
        if writes and node.args and given[0] != "buffer" and name not in WHOLE:
            yield name
        if method == "open" and set("wax") & set(mode):
            yield name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_code_writes_what_could_be_seen_in_part(path):
    assert [name for tree in trees(path) for name in writes_in_place(tree)] == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("save_file(tensors, path)", 1),
        ("figure.savefig(path)", 1),
        ("figure.savefig(buffer, format='png')", 0),
        ("np.save(path, values)", 1),
        ("path.write_text('a')", 1),
        ("dataset.to_netcdf(path)", 1),
        ("write_atomically(path, dataset.to_netcdf(engine='h5netcdf'))", 0),
        ("path.open('wb')", 1),
        ("open(path, 'a')", 1),
        ("open(path, mode='x')", 1),
        ("path.open('rb')", 0),
        ("with replacing(path) as temporary:\n    save_file(tensors, temporary)", 0),
    ],
)
def test_the_search_tells_writing_in_place(code, found):
    assert len(list(writes_in_place(ast.parse(code)))) == found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_code_reads_what_could_run(path):
    assert [name for tree in trees(path) for name in unsafe_calls(tree)] == []


def test_the_search_finds_what_it_looks_for():
    bad = """
import pickle
from joblib import load
np.load(path)
np.load(path, allow_pickle=True)
torch.load(path)
torch.load(path, weights_only=False)
yaml.load(text, Loader=yaml.Loader)
yaml.unsafe_load(text)
from torch import nn, load
from yaml import unsafe_load as read
import torch as t
import numpy as np
tar.extractall(folder)
tar.extract(member, folder, filter="fully_trusted")
eval(text)
"""
    assert len(list(unsafe_calls(ast.parse(bad)))) == 14
    good = 'np.load(p, allow_pickle=False); torch.load(p, weights_only=True); t.extractall(f, filter="data")'
    assert list(unsafe_calls(ast.parse(good))) == []


# ---- bombs


class Bomb:
    """Makes a folder as soon as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def bomb(tmp_path):
    """``bomb``: the folder that must not appear, and pickles that would make it: plain, in .npy, in torch's format."""
    exploded = tmp_path / "exploded"
    npy = io.BytesIO()
    np.save(npy, np.array([Bomb(exploded)], dtype=object), allow_pickle=True)
    zipped = io.BytesIO()
    torch.save({"fc1.weight": Bomb(exploded)}, zipped)
    yield {"pickle": pickle.dumps(Bomb(exploded)), "npy": npy.getvalue(), "torch": zipped.getvalue()}
    assert not exploded.exists()


def test_the_bomb_works(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").is_dir()


KINDS = pytest.mark.parametrize("kind", ["pickle", "npy", "torch"])


@KINDS
def test_a_bomb_as_weights_or_data_set_is_refused(bomb, kind, tmp_path):
    (tmp_path / "bank.safetensors").write_bytes(bomb[kind])
    (tmp_path / "merge.nc").write_bytes(bomb[kind])
    with pytest.raises(ValueError, match=r"bank\.safetensors is not a readable safetensors file"):
        Bank.load(tmp_path / "bank.safetensors")
    with pytest.raises(ValueError, match=r"merge\.nc is not a readable netCDF file"):
        records.read(tmp_path / "merge.nc", stage="merge")


@KINDS
def test_a_bomb_as_image_archive_or_decoded_images_is_refused(bomb, kind, tmp_path):
    folder = tmp_path / "set" / "train"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.png").write_bytes(bomb[kind])
    with pytest.raises(ValueError, match=r"cat/0\.png is not a readable image"):
        load_images(str(tmp_path / "set"), "train", root=tmp_path)
    (tmp_path / "set.tar").write_bytes(bomb[kind])
    with pytest.raises(ValueError, match=r"set\.tar cannot be unpacked"):
        load_images(str(tmp_path / "set.tar"), "train", root=tmp_path)
    (tmp_path / "cifar10-sample.nc").write_bytes(bomb[kind])
    with pytest.raises(ValueError, match=r"cifar10-sample\.nc is damaged or not the shipped sample"):
        load_images("cifar10-sample", "train", root=tmp_path)


def test_a_bomb_among_decoded_images_does_not_explode(bomb, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "set" / "train" / name / "0.png")
    digest = load_images(str(tmp_path / "set"), "train", root=tmp_path).digest
    (cache,) = (tmp_path / "raw" / "decoded").iterdir()
    cache.write_bytes(bomb["npy"])
    assert load_images(str(tmp_path / "set"), "train", root=tmp_path).digest == digest


def test_a_bomb_among_the_batches_of_cifar10_does_not_explode(bomb, tmp_path, monkeypatch):
    """They are pickles; torchvision opens them only if their MD5 sums are the published ones."""
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/nothing-listens-here")
    batches = tmp_path / "raw" / CIFAR10.base_folder
    batches.mkdir(parents=True)
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], None)]:
        (batches / name).write_bytes(bomb["pickle"])
    with pytest.raises(ValueError, match="cifar10 could not be downloaded"):
        load_images("cifar10", "train", root=tmp_path)


@KINDS
def test_a_bomb_as_checkpoint_does_not_explode(bomb, kind, shallow, train_images, recipe, tmp_path):
    train(shallow, train_images, [0], recipe, checkpoints=tmp_path / "checkpoints")
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    checkpoint.write_bytes(bomb[kind])
    with pytest.warns(UserWarning, match="is damaged and not used: .*header"):
        train(shallow, train_images, [0], recipe, checkpoints=tmp_path / "checkpoints")


def test_a_bomb_as_profile_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"dataset: !!python/object/apply:os.mkdir ['{tmp_path / 'exploded'}']\n")
    with pytest.raises(ValueError, match=r"mine\.yaml is not valid YAML"):
        load_profile(path)
    assert not (tmp_path / "exploded").exists()


# ---- archives


def entry(name, kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


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
    (tmp_path / "secret").write_text("secret")
    path = tmp_path / "in" / "set.tar.xz"
    path.parent.mkdir()
    with tarfile.open(path, "w:xz") as file:
        for member in members:
            file.addfile(member)
    with pytest.raises(ValueError, match=r"set\.tar\.xz cannot be unpacked: "):
        unpacked(path, tmp_path / "raw")
    assert sorted(p.name for p in tmp_path.rglob("*") if not p.is_dir()) == [".lock", "secret", "set.tar.xz"]
    assert not list((tmp_path / "raw" / "unpacked").iterdir())


def test_an_absolute_path_stays_inside(tmp_path):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as file:
        file.addfile(entry(f"{tmp_path}/outside.png"))
    folder = unpacked(path, tmp_path / "raw")
    assert not (tmp_path / "outside.png").exists()
    assert [p.name for p in (tmp_path / "raw").rglob("*.png")] == ["outside.png"]
    assert Path(folder).is_relative_to(tmp_path / "raw")
