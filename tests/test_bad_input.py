"""Bad input through the doors that users take: refused for the reason at hand, and nothing is written.

A row is ``(act, *reasons)``: ``act`` gets a `Box`, prepares there what it needs, and asks for what must be refused. The
message must hold every reason: the value, the file, the parameter.
"""

import json
import os
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save

import hrebasin as hb
import synthetic
from hrebasin import Bank, Images, Recipe, evaluate, load_images, match_weights
from hrebasin.files import project_root
from hrebasin.images.folders import images_in
from hrebasin.lipschitz.bounds import margin, measure
from hrebasin.merging.many import merge_many_sets
from hrebasin.merging.path import path
from hrebasin.merging.repair import moments
from hrebasin.robustness.attacks import attack_suite, robust_accuracies
from hrebasin.robustness.strong import pgd, transferred
from hrebasin.state_names import loaded
from hrebasin.study import records
from hrebasin.study.command import main
from hrebasin.study.publishing.publish import publish
from hrebasin.study.questions.variance_collapse import feature_distance
from hrebasin.study.records.networks import load_networks
from hrebasin.study.running.notebook_runner import run_notebook
from hrebasin.study.settings import load_setting
from hrebasin.study.tour.attacked_image import closeup, first_correct
from hrebasin.study.tour.landscape import landscape
from hrebasin.training.run import DivergedError, initial_bank
from hrebasin.weight_files import read_weights
from image_files import image, tar

ROOT = project_root()
NAN, INF = float("nan"), float("inf")
TINY = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())


class RefusedError(Exception):
    """A command ended with an error; holds what it said."""


class Box:
    """An empty project to work in, the networks and images that tests share, and what is there before acting."""

    def __init__(self, folder, trained, images, write_run, capsys):
        self.folder, self.trained, self.images, self.write_run, self.capsys = folder, trained, images, write_run, capsys
        self.keep()

    def held(self):
        files = [file for file in self.folder.rglob("*") if file.is_file() and file.name != ".lock"]
        return {file: file.read_bytes() for file in files}

    def keep(self):
        self.kept = self.held()

    def file(self, name, content):
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.keep()
        return file

    def command(self, *arguments):
        if main([str(argument) for argument in arguments]) != 0:
            raise RefusedError(self.capsys.readouterr().err)


@pytest.fixture
def box(tmp_path, monkeypatch, trained, train_images, test_images, write_run, capsys):
    for name in ("Snakefile", "config", "notebooks", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return Box(tmp_path, trained, {"train": train_images, "test": test_images}, write_run, capsys)


# ---- settings and commands


def setting(text):
    return lambda box: load_setting(box.file("mine.yaml", text))


def tiny(**values):
    return lambda box: load_setting("config/tiny.yaml", **values)


SETTINGS = [
    (setting(yaml.safe_dump(TINY | {"epochs": 0, "leaves": "4"})), "mine.yaml: leaves", "got '4'; epochs", "got 0"),
    (setting(yaml.safe_dump(TINY | {"n_group": 3})), "mine.yaml: unknown keys ['n_group']"),
    (setting(yaml.safe_dump({"widths": [4]})), "mine.yaml: missing keys ['ablation_pairs', ", "'epochs'"),
    (setting("- a\n- b\n"), "mine.yaml must hold keys and values"),
    (setting("epochs: 8\nepochs: 3"), "mine.yaml is not valid YAML: ", "keys stand twice"),
    (setting("[" * 600), "mine.yaml is not valid YAML"),
    (setting(b"dataset: \xff\n"), "mine.yaml is not text in UTF-8"),
    (lambda box: load_setting("config/huge.yaml"), "no setting 'huge': config holds augmented, convolutional"),
    (lambda box: load_setting("huge.yaml"), "no setting 'huge': . holds none"),
    (tiny(depth=3), "unknown keys ['depth']"),
    (tiny(epochs="3"), "tiny.yaml with epochs=3: epochs should be", "got '3'"),
]


def run(*given):
    return lambda box: box.command("run", "--cores", "1", *given)


def parameters(name, /, **given):
    return lambda box: box.command("notebook", f"notebooks/{name}.ipynb", "out/executed.ipynb", json.dumps(given))


def half(box):
    box.file("folder/train/cat/0.png", image())
    box.command("run", "setting=tiny", f"dataset={box.folder / 'folder'}")


def itself(box):
    notebook = box.file("01_train.ipynb", (ROOT / "notebooks" / "01_train.ipynb").read_bytes())
    run_notebook(notebook, box.folder / "folder" / ".." / "01_train.ipynb", {})


COMMANDS = [
    (run("profile=tiny"), "unknown values ['profile']; known are ('setting', "),
    (run("setting=huge"), "no setting 'huge'"),
    (run("setting=tiny", "run=../elsewhere"), "got '../elsewhere'"),
    (run("setting=tiny", "groups=0"), "n_groups should be greater than or equal to 1, got 0"),
    (run("setting=tiny", "first=3", "groups_per_shard=2"), "first_group", "multiple of groups_per_shard=2, got 3"),
    (run("setting=tiny", "ask=control"), "no open questions ['control']"),
    (run("--part", "questions", "setting=tiny", "first=2", "ask=recipes"), "('recipes',) are asked of none"),
    (run("--part", "trian", "setting=tiny"), "a run has the parts ('train', ", "got 'trian'"),
    (run("setting=tiny", "epochs=1.5"), "epochs should be a valid integer, got 1.5"),
    (run("setting=tiny", "epochs="), "epochs= names no value"),
    (run("setting=tiny", "groups=10001"), "n_groups should be less than or equal to 10000, got 10001"),
    (run("setting=tiny", "epochs=3", "epochs=4"), "'epochs' is set twice"),
    (run("tiny"), "key=value, got 'tiny'"),
    (run("setting=tiny", "device=cuda:99"), "device 'cuda:99' is not there"),
    (lambda box: box.command("run", "--cores", "0", "setting=tiny"), "cores must be a positive number or all, got '0'"),
    (half, "dataset is a folder without test"),
    (itself, "01_train.ipynb is the notebook itself"),
    (lambda box: run_notebook(box.file("a.ipynb", "# A"), box.folder / "out.ipynb", {}), "a.ipynb is no notebook"),
    (lambda box: publish(box.folder, box.folder / "results"), "lies in the run itself"),
    (parameters("01_trian"), "no notebook at notebooks/01_trian.ipynb"),
    (lambda box: box.command("notebook", "notebooks/01_train.ipynb", "config"), "config is a folder"),
    (parameters("01_train", epoch=3), "01_train.ipynb does not declare the parameters ['epoch']", "'epochs'"),
    (parameters("01_train", epochs="3"), "01_train.ipynb: epochs should be a valid integer, got '3'"),
    (parameters("01_train", groups=[0, 0]), "groups should increase, got [0, 0]"),
    (parameters("01_train", groups=[]), "groups should have at least 1 item", "got []"),
    (parameters("01_train", shard=-1), "shard should be greater than or equal to 0, got -1"),
    (parameters("02_merge", merge_many_sizes=[2, 32]), "merge_many_sizes should lie in [2, leaves=8], got 32"),
    (parameters("06_paper", shards=[1, 0]), "shards should increase, got [1, 0]"),
    (parameters("01_train", device="cuda:99"), "device 'cuda:99' is not there"),
    (parameters("90_benchmarks", repeats="3"), "repeats should be a valid integer, got '3'"),
]


# ---- images


def png(width=5, depth=16):
    """A PNG of four rows of black colours of a depth that Pillow cannot write."""
    rows = zlib.compress(bytes(4 * (1 + 5 * 3 * depth // 8)))
    chunks = {b"IHDR": struct.pack(">2I5B", width, 4, depth, 2, 0, 0, 0), b"IDAT": rows, b"IEND": b""}
    coded = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


def planes(start=8):
    """A TIFF of 2 x 2 colours of 16 bits, plane by plane."""
    values = b"".join(struct.pack("<4H", *range(k, k + 4)) for k in (0, 300, 600))
    bits, offsets, counts = (start + len(values) + 12 * k for k in range(3))
    tables = struct.pack("<3H", 16, 16, 16).ljust(12) + struct.pack("<3I", 8, 16, 24) + struct.pack("<3I", 8, 8, 8)
    entries = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, offsets)]
    entries += [(277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 3, counts), (284, 3, 1, 2)]
    fields = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, start + len(values) + len(tables)) + values + tables + fields


def pictures(change, /, split="train"):
    """Load a folder of two images a class; ``change`` maps names of files to other contents, None to leave one out."""

    def act(box):
        content = {f"{part}/{name}/{i}.png": image() for part in box.images for name in ("cat", "dog") for i in (0, 1)}
        for name, other in (content | change).items():
            if other is not None:
                box.file(f"set/{name}", other)
        load_images(str(box.folder / "set"), split, root=box.folder / "data")

    return act


def dogs(name, content, form=""):
    """A bad image beside those of the second class, and what the message must name."""
    return pictures({f"train/dog/{name}": content}), f"set/train/dog/{name} {form or 'is not a readable image'}"


def pipe(box):
    os.mkfifo(box.folder / "9.png")
    images_in(box.folder)


def archive(content):
    return lambda box: load_images(str(box.file("set.tar", content)), "train", root=box.folder / "data")


def tensor_images(**changes):
    parts = {"pixels": torch.zeros(6, 3, 4, 5, dtype=torch.uint8), "labels": torch.arange(6) % 2, "classes": ("a", "b")}
    return lambda box: Images(**(parts | changes), source="test")


NO_DOGS = {"train/dog/0.png": None, "train/dog/1.png": None}
FEW = {f"{split}/{name}/{i}.png": None for split in ("train", "test") for name in ("cat", "dog") for i in (0, 1)}
CLEAR = image(mode="P", transparency=bytes(256))
MOVING = image(form="tiff", save_all=True, append_images=[Image.new("RGB", (5, 4))])
DEEP = "has mode RGB of more than 8 bits"
IMAGES = [
    (lambda box: load_images("cifar10-sample", "valid"), "split must be one of", "got 'valid'"),
    (lambda box: load_images("cifar100", "train"), "unknown image source 'cifar100'"),
    (lambda box: load_images("cifar10-sample", "train"), "sample is missing: data/cifar10-sample.nc"),
    (lambda box: load_images("cifar10-sample", "test", root=ROOT / "data", at_most=-1), "at_most must not be", "-1"),
    (lambda box: box.images["test"].first(61), "61 images asked for, synthetic test images has 60"),
    (pictures(FEW | {"train/cat/0.png": image()}, split="test"), "no folder", "set/test: expected"),
    (pictures(FEW | {"train/0.png": image()}), "set/train holds 0 class folders, at least 2"),
    (pictures(NO_DOGS | {"train/dog/readme.txt": "no image"}), "class folder", "set/train/dog holds no image"),
    (pictures({"test/emu/0.png": image()}), "set/train has the classes ('cat', 'dog')", "'emu'"),
    (pictures({"train/cat/1.png": image((4, 5))}), "set/train/cat/1.png is (channel, y, x) = (1, 4, 5)"),
    dogs("1.png", image((5, 4, 3)), "is (channel, y, x) = (3, 5, 4)"),
    dogs("2.jpg", image(form="jpeg")[:-40]),
    dogs("2.ppm", b"P6 5 4 65536\n" + bytes(120)),
    (*dogs("1.png", png(10**9, depth=8)), "bomb"),
    dogs("0.png", image((4, 5), np.uint16), "has mode I"),
    dogs("0.png", png(), DEEP),
    dogs("0.ppm", b"P6 5 4 65535\n" + bytes(120), DEEP),
    (pictures(FEW | {f"{part}/{name}/0.tif": planes() for part in ("train", "test") for name in "ab"}), "0.tif", DEEP),
    dogs("1.png", image((4, 5, 4)), "is transparent somewhere"),
    dogs("1.png", CLEAR, "is transparent somewhere"),
    dogs("2.tif", MOVING, "has 2 frames"),
    dogs("2.GIF", image(form="gif"), "has the type .GIF: images must be .jpg, "),
    (pictures({"train/dog/more/2.png": image()}), "set/train/dog/more is a folder in a class folder"),
    (pipe, "9.png is neither a file nor a link to one"),
    (archive(tar({"train/cat/0.png": image()})[:600]), "set.tar cannot be unpacked"),
    (archive(tar({"train/cat/0.png": b"", "train/cat/1.png": b""})[:512]), "cannot be unpacked: it ends before"),
    (tensor_images(pixels=torch.zeros(6, 3, 4, 5)), "torch.float32 (6, 3, 4, 5)"),
    (tensor_images(pixels=torch.zeros(6, 4, 5, dtype=torch.uint8)), "(6, 4, 5)"),
    (tensor_images(pixels=torch.zeros(0, 3, 4, 5, dtype=torch.uint8)), "at least one image, got", "(0, 3, 4, 5)"),
    (tensor_images(labels=torch.zeros(6)), "labels must be int64 (image,), got torch.float32 (6,)"),
    (tensor_images(labels=torch.zeros(5, dtype=torch.int64)), "5 labels do not fit 6 images"),
    (tensor_images(labels=torch.arange(6) - 1, classes=tuple("abcdef")), "labels from -1 to 4 do not fit"),
    (tensor_images(labels=torch.full((6,), 2)), "labels from 2 to 2 do not fit 6 images and 2 classes"),
]


# ---- weights


def weights(change, architecture=None, form="hrebasin-bank/1"):
    """Load a file of weights whose tensors ``change`` has changed."""

    def act(box):
        shape = json.dumps(box.trained.architecture.as_dict() | (architecture or {}))
        metadata = {"format": form, "architecture": shape, "labels": json.dumps({"seed": 41})}
        tensors = {name: tensor.clone() for name, tensor in box.trained.tensors.items()}
        Bank.load(box.file("bank.safetensors", save(change(tensors), metadata)))

    return act


def nothing(tensors):
    return tensors


def networks(change=(), *, record=None, images=None, lost=None):
    """Load the networks of a run in which a bank, attributes of the data sets or a file are not what they were."""

    def act(box):
        box.write_run(box.folder / "run", change=change, attrs=record)
        if lost:
            (box.folder / "run" / lost).unlink()
        box.keep()
        load_networks(box.folder / "run", 0, images=images or box.images)

    return act


def other_images(shape=(3, 4, 4), classes="abcd"):
    return {"test": Images(torch.zeros(4, *shape, dtype=torch.uint8), torch.arange(4), tuple(classes), "mine")}


def narrower(bank):
    return initial_bank(replace(bank.architecture, widths=(9,)), [0, 2])


def twice(box):
    state = {name: torch.ones(2, 2)[: 2 - (name == "bias")] for name in ("weight", "bias")}
    loaded(torch.nn.Linear(2, 2), state | {f"module.{name}": value for name, value in state.items()}, "a.pt")


def pytorch(state):
    def act(box):
        torch.save(state, box.folder / "odd.pt")
        box.keep()
        read_weights(box.folder / "odd.pt")

    return act


OTHER_IMAGES, MERGED = "run/weights/unmerged-000.safetensors", "run/weights/merged-000.safetensors"
WEIGHTS = [
    (lambda box: Bank.load("none.safetensors"), "no bank of networks at none.safetensors"),
    (lambda box: Bank.load(box.file("bank.safetensors", save({"a": torch.ones(2)}))), "bank.safetensors is not a bank"),
    (weights(nothing, form="hrebasin-bank/2"), "bank.safetensors is not a bank", "'hrebasin-bank/2'"),
    (weights(lambda t: t | {"fc2.bias": t["fc2.bias"] * NAN}), "fc2.bias of the network of seed 41", "not finite"),
    (weights(lambda t: t | {"fc2.bias": t["fc2.bias"].half()}), "bank.safetensors: fc2.bias is torch.float16, not tor"),
    (weights(lambda t: t | {"fc2.bias": t["fc2.bias"].int()}), "bank.safetensors: fc2.bias is torch.int32"),
    (weights(nothing, {"widths": (12, 10, 7)}), "bank.safetensors holds no valid bank", "fc3.weight must be"),
    (weights(nothing, {"widths": (12, 10)}), "bank.safetensors holds no valid bank", "'fc4.bias'"),
    (weights(lambda t: t | {"fc4.bias": t["fc4.bias"][:5]}), "no valid bank", "got lengths", "'fc4.bias': 5"),
    (weights(lambda t: {n: w[:0] for n, w in t.items()}), "no valid bank", "at least one network"),
    (twice, "'weight' twice"),
    (pytorch({1: torch.ones(2)}), "odd.pt", " no text"),
    (pytorch({"a": torch.ones(2).to_sparse()}), "odd.pt", " no dense tensor"),
    (networks(lost="weights/merged-000.safetensors"), "no bank of networks at", MERGED),
    (networks(lost="train/shard-000.nc"), "no data set at", "run/train/shard-000.nc"),
    (networks({"merged": narrower}), MERGED, "different architectures", "widths=(9,)"),
    (networks({"unmerged": lambda bank: bank.relabel(group=5)}), OTHER_IMAGES, "8 networks are not in the data set"),
    (networks(record={"data_digest": json.dumps({"train": "0" * 64})}), OTHER_IMAGES, "train digest 00"),
    (networks(record={"data_digest": None}), "run/train/shard-000.nc", "the data set does not tell data_digest"),
    (networks(record={"created": "2030-01-01T00:00:00+00:00"}), OTHER_IMAGES, "not written together: created 20"),
    (networks(images=other_images()), "networks of other images: test digest", "(mine)"),
    (networks(images=other_images(classes="abcde")), "(3, 4, 4) of 4 classes, but", "are (3, 4, 4) of 5 classes"),
    (networks(images=other_images((1, 4, 4))), "the test images, mine, are (1, 4, 4) of 4 classes"),
]


# ---- data sets


def merge_record():
    return synthetic.results(groups=1, leaves=2, stages=["merge"])["merge"]


def written(change=nothing, stage="merge", **attrs):
    """Read a data set that ``change`` has changed after it was checked."""

    def act(box):
        record = change(merge_record()).assign_attrs({"format": records.FORMAT, "stage": stage} | attrs)
        record.to_netcdf(box.folder / "merge.nc", engine="h5netcdf")
        box.keep()
        records.read("merge.nc", stage="merge")

    return act


def refused(change=nothing, stage="merge"):
    return lambda box: records.write(change(merge_record()), "merge.nc", stage=stage)


def shards(*changes, own=1):
    """Join shards with these attributes, each of a group of its own."""

    def act(box):
        paths = [box.folder / f"shard-{number}.nc" for number in range(len(changes))]
        for number, (file, change) in enumerate(zip(paths, changes, strict=True)):
            record = merge_record()
            record = record.assign_coords(model=record.model.astype(object) + f" {number * own}")
            record.model.attrs = merge_record().model.attrs
            records.write(record, file, stage="merge", attrs={"data_digest": "{}"} | change)
        box.keep()
        records.concat(paths, stage="merge")

    return act


def bare(record, name):
    record[name] = record[name].copy()
    record[name].attrs = {"long_name": "bare"}
    return record


DATA_SETS = [
    (written(lambda d: d.drop_vars("converged")), "merge.nc: variable 'converged' of stage 'merge' is missing"),
    (refused(lambda d: d.drop_vars("converged")), "merge.nc: variable 'converged' of stage 'merge' is missing"),
    (written(lambda d: d.assign(seconds=d.seconds.expand_dims(draw=2))), "seconds has dimensions ('draw', 'model')"),
    (written(lambda d: d.assign(seconds=d.seconds.astype(str))), "merge.nc: seconds holds", "not numbers"),
    (written(lambda d: d.drop_vars(["method", "node"])), "coordinates ['method', 'node'] of the networks are"),
    (written(lambda d: d.isel(model=[0, 1, 1])), "merge.nc: the same network appears twice"),
    *((refused(lambda d, n=n: bare(d, n)), f"merge.nc: {n} lacks long_name or units") for n in ("seconds", "node")),
    (refused(stage="merging"), "unknown stage 'merging'"),
    (refused(stage="train"), "merge.nc: train_loss has dimensions ('model',)"),
    (lambda box: records.read("none.nc", stage="merge"), "no data set at none.nc"),
    (written(stage="train"), "merge.nc is a data set of stage 'train', not 'merge'"),
    (written(parameters="{'a': 1}"), "merge.nc: the attribute parameters is not valid JSON"),
    (written(format="hrebasin-record/2"), "merge.nc: format 'hrebasin-record/2' instead of 'hrebasin-record/1'"),
    (shards(), "no shards of stage 'merge' to join"),
    (shards({}, {}, own=0), "the same network appears twice"),
    (
        shards({"data_digest": '{"a": 1}'}, {"data_digest": '{"a": 2}'}),
        """shard-1.nc differ in data_digest: '{"a": 1}' and '{"a": 2}'""",
    ),
    (shards({"data_digest": "[1]"}), "shard-0.nc: the attribute data_digest is no JSON object but [1]"),
    (shards({"networks": 3}), "shard-0.nc: the attribute networks is no text but"),
    (shards({"parameters": "{}"}, {"parameters": '{"flip": true}'}), "shard-1.nc differ in flip: None and True"),
]


# ---- networks, training, merging, attacks


def training(seeds=(0, 1), recipe=None, bank_size=None, images=(), snapshots=(), **changes):
    def act(box):
        given = replace(box.images["train"], **dict(images))
        architecture = replace(box.trained.architecture, **changes)
        hb.train(architecture, given, seeds, recipe or FAST, bank_size=bank_size, snapshots=snapshots)

    return act


def of(ask, *given, **options):
    """``ask`` with the trained bank before what is given; of that, what takes a box is made there."""
    return lambda box: ask(box.trained, *(each(box) if callable(each) else each for each in given), **options)


def each(ask, *cases):
    """One row a case ``(value, *reasons)``: ``ask(value)``, a function of the box."""
    return [(ask(value), *reasons) for value, *reasons in cases]


def poisoned(box):
    """The bank with one network that has diverged."""
    tensors = {name: tensor.clone() for name, tensor in box.trained.tensors.items()}
    tensors["fc2.weight"][3, 0, 0] = NAN
    return replace(box.trained, tensors=tensors)


def doubled(box):
    return replace(box.trained, tensors={name: tensor.double() for name, tensor in box.trained.tensors.items()})


def others(box):
    """A bank of another architecture."""
    return initial_bank(replace(box.trained.architecture, widths=(16,)), range(8))


def few(n):
    """The first networks."""
    return lambda box: box.trained.select(slice(n))


def align(box, **changes):
    """An alignment of eight networks of a changed architecture, each with itself."""
    bank = initial_bank(replace(box.trained.architecture, **changes), range(8))
    return match_weights(bank, bank)


def noise(bank, *given, **options):
    return hb.attack(bank, *given, **{"kind": "gaussian", "epsilons": [0.0, 0.1]} | options)


FAST = Recipe(learning_rate=1e-2, batch_size=16, epochs=6)
GREY = torch.zeros(96, 1, 4, 4, dtype=torch.uint8)
NOT_FINITE = "fc2.weight of the network of seed 3 holds weights", "not finite"
SIZES = {"epsilons": [0.0, 0.1]}
HALVES, TWO = torch.full((2, 3, 4, 4), 0.5), torch.tensor([0, 1])
# doors where pixels meet a bank, alone, with labels, or as images
OF_PIXELS = [
    lambda bank, pixels: hb.local_lipschitz(bank, pixels, radius=0.1),
    hb.gradient_norm,
    moments,
    lambda bank, pixels: feature_distance(bank, bank, [[k] for k in range(len(bank))], pixels),
]
OF_LABELS = [
    margin,
    lambda *given: measure(*given, radii=[0.1], bounded=1),
    noise,
    lambda *given: robust_accuracies(*given, **SIZES),
    lambda *given: attack_suite(*given, magnitudes=[0.0], draws=1, **SIZES),
    lambda *given: pgd(*given, steps=2, **SIZES),
    lambda bank, *given: transferred(bank, bank.select([3]), *given, steps=2, **SIZES),
]
OF_IMAGES = [
    evaluate,
    lambda bank, images: path(bank, bank, images, [0.5]),
    lambda bank, images: landscape(bank.select([3]), bank.select([0]), images),
    first_correct,
    lambda bank, images: closeup(bank, images, 0, epsilon=0.1),
]
# pixels and labels that do not fit three channels of four by four and four classes; the first of each at every door
PIXELS = [
    (HALVES * NAN, "pixels must lie in [0, 1], got nan to nan"),
    (HALVES * 255, "pixels must lie in [0, 1], got 127.5 to 127.5"),
    (HALVES - 1, "pixels must lie in [0, 1], got -0.5 to -0.5"),
    (HALVES[:, :1], "pixels must be (image, *(3, 4, 4)) of at least one image, got (2, 1, 4, 4)"),
    (HALVES[:0], "got (0, 3, 4, 4)"),
    (HALVES.int(), "pixels must be uint8 or floats in [0, 1], got torch.int32"),
]
LABELS = [
    (TWO + 3, "labels from 3 to 4 do not fit 2 images and 4 classes"),
    (TWO - 1, "labels from -1 to 0 do not fit 2 images and 4 classes"),
    (TWO[:1], "1 labels do not fit 2 images"),
    (TWO[None], "labels must be int64 (image,), got torch.int64 (1, 2)"),
    (TWO.float(), "labels must be int64 (image,), got torch.float32 (2,)"),
]
UNFIT_IMAGES = [
    (lambda box: Images(HALVES.byte(), TWO, ("a", "b", "c"), "mine"), "images (3, 4, 4) of 3 classes do not fit", "4"),
    (lambda box: replace(box.images["train"], pixels=GREY), "images (1, 4, 4) of 4 classes do not fit"),
]
BAD_ARCHITECTURES = [("widths", ()), ("widths", (4, 0)), ("n_classes", 1), ("image_shape", (3, 32)), ("mean", (0.5,))]
BAD_ARCHITECTURES += [("std", (1.0, 0.0, 1.0)), ("std", (1.0, INF, 1.0)), ("mean", (0.0, NAN, 0.0))]
BAD_ARCHITECTURES += [("widths", (4.5,)), ("image_shape", (3, 0, 32))]
BAD_RECIPES = [("optimizer", "lbfgs"), ("precision", "float16"), ("learning_rate", NAN), ("learning_rate", INF)]
BAD_RECIPES += [("batch_size", 0), ("l2", -1.0), ("l2", NAN), ("epochs", 1.5), ("epochs", True)]
DIVERGING = [FAST, replace(FAST, l2=1e39), FAST]
NETWORKS = [
    (lambda box: Bank.stack([]), "at least one network, got none"),
    (lambda box: Bank.concat([]), "nothing to join: no banks given"),
    (lambda box: Bank.concat([box.trained, others(box)]), "different architectures", "(16,)"),
    (lambda box: Bank.stack([box.trained[0], others(box)[0]]), "network 1 has", "(16,), but network 0 has (12,"),
    (lambda box: Bank.stack(list(box.trained), colour="red"), "unknown labels ['colour']"),
    (lambda box: Bank.stack(list(box.trained), stage=[1, 2]), "label 'stage' has 2 values for 8 networks"),
    (of(Bank.select, []), "no network selected out of 8"),
    (of(Bank.where, stage=7), "no network with {'stage': 7}"),
    (of(Bank.where, stages=1), "unknown label 'stages'"),
    (of(Bank.__call__, torch.zeros(5, 1, 4, 4)), "got (5, 1, 4, 4)"),
    (of(Bank.__call__, torch.zeros(2, 6, 3, 4, 4)), "(2, 6, 3, 4, 4) for 8 networks"),
    *each(
        lambda given: lambda box: hb.mlp(**given),
        *(({name: bad}, str(bad)) for name, bad in BAD_ARCHITECTURES),
    ),
    *each(
        lambda given: lambda box: Recipe(**given),
        *(({name: bad}, name, f"got {bad!r}") for name, bad in BAD_RECIPES),
    ),
    (lambda box: Recipe(l1=0.1, l2=0.1), "got l1=0.1 and l2=0.1"),
    (training(seeds=[]), "at least one, got []"),
    (training(seeds=[1, 2, 1]), "seeds must be distinct", "got [1, 2, 1]"),
    (training(recipe=[FAST, replace(FAST, epochs=7)]), "differ in l1 and l2 alone", "epochs=6", "epochs=7"),
    (training(recipe=[FAST]), "1 recipes given for 2 seeds"),
    (training(images={"pixels": GREY}), "images (1, 4, 4) of 4 classes do not fit the architecture's (3, 4, 4) and 4"),
    *((training(snapshots=bad), "between 0 and the recipe's 6 epochs, got") for bad in ([0], [6], [1, 1], [NAN])),
    (training(recipe=replace(FAST, l2=1e-3), snapshots=[1]), "of networks without a penalty"),
    # one that diverges among good ones, and one at chance
    *((training([40, 41, 42], DIVERGING, bank_size=n), "the network of seed 41 diverged: ") for n in (1, 3)),
    (training([7], replace(FAST, learning_rate=1e-9)), "the network of seed 7 learned nothing", "chance is 0.2500"),
    (of(match_weights, few(2)), "8 reference networks", "2 moving ones"),
    (of(match_weights, others), "different architectures", "widths=(16,)"),
    (of(match_weights, few(8), max_sweeps=0), "max_sweeps must be at least 1, got 0"),
    (of(match_weights, few(8), seed=[1, 2]), "2 seeds given for 8 pairs"),
    (of(match_weights, poisoned), "moving networks: ", *NOT_FINITE),
    (lambda box: match_weights(poisoned(box), box.trained), "reference networks: ", *NOT_FINITE),
    (lambda box: align(box, widths=(8, 6, 5)).apply(box.trained), "{'P1': (8, 8), 'P2': (8, 6)", "{'P1': 12, 'P2': 10"),
    (lambda box: align(box).apply(few(2)(box)), "of 8 pairs cannot permute a bank of 2 networks"),
    (lambda box: hb.merge_tree(poisoned(box)), *NOT_FINITE),
    (lambda box: hb.merge_many(poisoned(box)), "MergeMany: ", *NOT_FINITE),
    (lambda box: hb.merge_naive(poisoned(box)), "naive average: ", *NOT_FINITE),
    (lambda box: hb.merge_tree(few(3)(box)), "a tree needs 2**k leaves, got 3"),
    (lambda box: hb.merge_tree(few(6)(box), leaves=4), "6 networks do not divide into trees of 4"),
    (lambda box: hb.merge_pairs(few(3)(box)), "even number of networks, got 3"),
    (of(hb.merge_pairs, permute="both"), "permute must be 'first' or 'second', got 'both'"),
    *((of(hb.merge_pairs, weight=bad), f"weight must lie in [0, 1], got {bad}") for bad in (-0.01, 1.01, NAN)),
    *((of(hb.interpolate, few(8), [0, bad, 1]), f"lambda must lie in [0, 1], got {bad}") for bad in (-0.01, 1.01, NAN)),
    (lambda box: hb.interpolate(few(1)(box), box.trained, [0.5]), "1 networks cannot be paired with 8"),
    (of(hb.interpolate, others, [0.5]), "different architectures"),
    (of(hb.interpolate, poisoned, [0.5]), "second networks: ", *NOT_FINITE),
    (lambda box: hb.interpolate(poisoned(box), box.trained, [0.5]), "first networks: ", *NOT_FINITE),
    (lambda box: hb.merge_many(few(1)(box)), "MergeMany needs at least 2 networks, got 1"),
    *((of(hb.merge_many, limits=bad), f"positive and increasing, got {bad}") for bad in ([2, 1], [0, 1])),
    (lambda box: merge_many_sets([box.trained] * 2, seeds=[0]), "1 seeds given for 2 sets"),
    (lambda box: merge_many_sets([box.trained, others(box)], seeds=[0, 0]), "different architectures"),
    *each(
        lambda options: of(noise, HALVES, TWO, **options),
        ({"kind": "carlini"}, "unknown attack 'carlini'; known are ('fgsm'"),
        *(
            ({"epsilons": bad}, f"must increase within [0, 1], got {bad}")
            for bad in ([], [0.1, 0.1], [0.0, 1.5], [-0.1, 0.1])
        ),
        ({"epsilons": [NAN], "kind": "deepfool-l2"}, "epsilons must increase", "[nan]"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"samples_at_once": 0}, "samples_at_once must be at least 1, got 0"),
    ),
    *each(
        lambda options: of(pgd, HALVES, TWO, **SIZES | options),
        ({"loss": "hinge"}, "loss must be one of", "got 'hinge'"),
        ({"steps": 0}, "steps and restarts must be at least 1, got 0 and 5"),
        ({"epsilons": [0.2, 0.1]}, "epsilons must increase"),
    ),
    *each(lambda pixels: of(hb.gradient_norm, pixels), *PIXELS),
    *each(lambda labels: of(noise, HALVES, labels), *LABELS),
    *each(lambda images: of(evaluate, images), *UNFIT_IMAGES),
    *((of(ask, PIXELS[0][0]), PIXELS[0][1]) for ask in OF_PIXELS),
    *((of(ask, PIXELS[0][0], TWO), PIXELS[0][1]) for ask in OF_LABELS),
    *((of(ask, HALVES, LABELS[0][0]), LABELS[0][1]) for ask in OF_LABELS),
    *((of(ask, UNFIT_IMAGES[0][0]), *UNFIT_IMAGES[0][1:]) for ask in OF_IMAGES),
    *((lambda box, ask=ask: ask(poisoned(box), HALVES), *NOT_FINITE) for ask in OF_PIXELS),
    *((lambda box, ask=ask: ask(poisoned(box), HALVES, TWO), *NOT_FINITE) for ask in OF_LABELS),
    *((lambda box, ask=ask: ask(poisoned(box), box.images["test"]), *NOT_FINITE) for ask in OF_IMAGES),
    *((lambda box, ask=ask: ask(poisoned(box)), *NOT_FINITE) for ask in (hb.global_lipschitz, hb.eclipse_fast)),
    (lambda box: poisoned(box).save("bank.safetensors"), "bank.safetensors: ", *NOT_FINITE),
    (lambda box: doubled(box).save("a.sf"), "a.sf: fc1.weight is torch.float64, not torch.float32"),
    *((of(ask, units="byte"), "units must be one of", "got 'byte'") for ask in (hb.global_lipschitz, hb.eclipse_fast)),
    (of(hb.local_lipschitz, HALVES, radius=1, units="byte"), "units must be one of", "got 'byte'"),
    (of(measure, HALVES, TWO, radii=[0.1], bounded=0), "bounded must be at least 1, got 0"),
    *((of(hb.local_lipschitz, HALVES, radius=r), f"must be positive and finite, got {r}") for r in (0, NAN, INF)),
]

PARTS = {"setting": SETTINGS, "command": COMMANDS, "images": IMAGES, "weights": WEIGHTS, "data": DATA_SETS}
ROWS = [(f"{part}-{k}", row) for part, rows in (PARTS | {"networks": NETWORKS}).items() for k, row in enumerate(rows)]


@pytest.mark.parametrize("row", [row for _, row in ROWS], ids=[name for name, _ in ROWS])
def test_bad_input_is_refused_with_its_reason_and_nothing_is_written(row, box):
    act, *reasons = row
    with pytest.raises((ValueError, FileNotFoundError, DivergedError, RefusedError)) as caught:
        act(box)
    for reason in reasons:
        assert reason in str(caught.value)
    assert box.held() == box.kept


MERGES = [hb.merge_pairs, lambda bank: hb.merge_tree(bank)[-1], hb.merge_many, hb.merge_naive]
MERGES += [lambda bank: next(iter(hb.interpolate(bank, bank, [0.3])))]


def test_what_is_given_is_not_changed(trained, test_images, unchanged):
    bank, given = trained.select(range(4)), test_images.first(4)
    whole, labels = given.pixels, given.labels
    floats = whole.float() / 255
    kept = [tensor.clone() for tensor in (whole, floats, labels)]
    unchanged(trained, bank)
    for pixels in (whole, floats):
        for ask in OF_PIXELS:
            ask(bank, pixels)
        for ask in OF_LABELS:
            ask(bank, pixels, labels)
    for ask in OF_IMAGES:
        ask(bank, given)
    match_weights(bank, bank.select(range(3, -1, -1))).apply(bank)
    for ask in MERGES:
        for tensor in ask(bank).tensors.values():
            tensor.zero_()  # nor is memory shared
    for tensor, before in zip((whole, floats, labels), kept, strict=True):
        assert torch.equal(tensor, before)
        assert not tensor.requires_grad
