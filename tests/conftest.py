"""Shared fixtures: a tiny architecture, tiny learnable images and a small trained bank, all from named streams."""

import copy
import gc
import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

# Before torch is imported: tests share cores, and threads that wait by spinning take them from one another.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# jsonschema, which nbformat imports, would parse a grammar of addresses for seconds
sys.modules.setdefault("rfc3987_syntax", None)

import hypothesis
import numpy as np
import pytest
import torch
import xarray as xr

import hrebasin
from hrebasin import Alignment, Architecture, Bank, Images, Recipe, train
from hrebasin.random_streams import generator
from hrebasin.study import records, resampling
from lazily import Lazily

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("circle", "cross", "square", "star")
RECIPE = Recipe(learning_rate=1e-2, batch_size=16, epochs=6)

# No deadline: times on a shared machine say nothing. Derandomised: a failure is the same failure everywhere.
hypothesis.settings.register_profile("hrebasin", deadline=None, derandomize=True, max_examples=12)
hypothesis.settings.load_profile("hrebasin")


def pytest_configure():
    """Refuse to test another checkout: in a copied one, the environment's library is that of the first."""
    found = Path(hrebasin.__file__).resolve()
    if ROOT not in found.parents:
        raise pytest.UsageError(f"the tests of {ROOT} would test {found}: make builds an environment of its own")


def pytest_collection_finish():
    """What was imported stays: to look through it for garbage again and again takes a twentieth of the time."""
    gc.freeze()


def pytest_unconfigure():
    """What is left is collected again, as bindings in C++ expect."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.fx.config.do_not_emit_stack_traces = True  # of every node that is exported: a tenth of the time


@pytest.fixture(autouse=True)
def _same_modules():
    """New modules have the same weights whichever tests ran before: of some, matching ends in a local optimum."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _parsed_once():
    """A file with the bytes of one that was read is not parsed again: that took a tenth of the time of all tests."""
    parse, known = xr.open_dataset, {}

    def open_dataset(path, **kwargs):
        if not Path(path).is_file():
            return parse(path, **kwargs)
        digest = hashlib.sha256(Path(path).read_bytes()).digest()
        if digest not in known:
            with parse(path, **kwargs) as file:
                known[digest] = file.load()
        return known[digest].copy(deep=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xr, "open_dataset", open_dataset)
        yield


@pytest.fixture(scope="module")
def few_resamples():
    """A twentieth of the resamples behind intervals, for modules in which they decide nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "RESAMPLES", 999)
        yield


def _images(split: str, n: int, *, shape=(3, 4, 4), noise: float = 60.0) -> Images:
    """Noisy copies of one random pattern a class; the patterns are the same in every split."""
    patterns = torch.empty(len(CLASSES), *shape).uniform_(30, 225, generator=generator("test/patterns"))
    stream = generator(f"test/images/{split}")
    labels = torch.arange(n) % len(CLASSES)
    spread = torch.empty(n, *shape).normal_(0, noise, generator=stream)
    pixels = (patterns[labels] + spread).round().clamp(0, 255).to(torch.uint8)
    return Images(pixels, labels, CLASSES, f"synthetic {split} images")


@pytest.fixture(scope="session")
def make_images():
    """``make_images(split, n, shape=..., noise=...)``: learnable images of four classes."""
    return _images


@pytest.fixture(scope="session")
def train_images() -> Images:
    """96 images (3, 4, 4) of four classes."""
    return _images("train", 96)


@pytest.fixture(scope="session")
def test_images() -> Images:
    """60 other images of the same classes."""
    return _images("test", 60)


@pytest.fixture(scope="session")
def architecture(train_images) -> Architecture:
    """Three hidden layers, 48-12-10-8-4, normalised to the training images."""
    mean, std = train_images.statistics()
    return Architecture((12, 10, 8), len(CLASSES), train_images.shape, mean, std)


@pytest.fixture(scope="session")
def shallow(architecture) -> Architecture:
    """One hidden layer, 48-16-4: matching is one assignment, so its result is the global optimum."""
    return replace(architecture, widths=(16,))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Enough training to classify the tiny images well, within a tenth of a second a network."""
    return RECIPE


@pytest.fixture(scope="session")
def trained(architecture, train_images) -> Bank:
    """Eight trained networks, seeds 0 to 7; tests must not change it."""
    return train(architecture, train_images, range(8), RECIPE)


@pytest.fixture(scope="session")
def pixels(test_images) -> torch.Tensor:
    """Pixels in [0, 1], (image, channel, y, x) float32."""
    return test_images.pixels.float() / 255


@pytest.fixture(scope="session")
def random_permutations():
    """``random_permutations(bank, name)``: an alignment with random permutations for every network of a bank."""

    def make(bank: Bank, name: str) -> Alignment:
        stream = generator(f"test/permutations/{name}")
        permutations = {
            f"P{number}": torch.stack([torch.randperm(width, generator=stream) for _ in range(len(bank))])
            for number, width in enumerate(bank.architecture.widths, start=1)
        }
        nothing = torch.zeros(len(bank), dtype=torch.float64)
        return Alignment(permutations, nothing, nothing.long())

    return make


@pytest.fixture(scope="session")
def write_run(trained, train_images, test_images):
    """``write_run(folder)``: weights of a shard and the data sets beside them, as the first two stages leave them.

    ``change``: for the parts "unmerged" and "merged", what is done to the bank before it is written; ``attrs`` replace
    attributes of the data sets, None takes one away.
    """
    banks = {"unmerged": trained, "merged": trained.select([0, 1]).relabel(method="tree", stage=1, n_merged=2)}
    images = {"train": train_images, "test": test_images}
    origin = records.provenance(setting="p", parameters={}, images=images, device="cpu", clock=records.Clock())

    def write(folder, *, change=(), attrs=None):
        changes = dict(change)
        for part, stage in (("unmerged", "train"), ("merged", "merge")):
            bank = banks[part]
            ones = {
                name: bank.array(np.ones(len(bank)), name=name, long_name=name, units="1")
                for name, dims in records.schema(stage).items()
                if dims == ("model",)
            }
            record = bank.history.assign(ones)
            path = folder / stage / "shard-000.nc"
            told = {name: value for name, value in (origin | (attrs or {})).items() if value is not None}
            records.write(record, path, stage=stage, attrs=told)
            changes.get(part, replace)(bank).save(folder / "weights" / f"{part}-000.safetensors", origin=origin)
        return Bank.concat(banks.values())

    return write


@pytest.fixture
def unchanged():
    """``unchanged(bank, ...)`` takes copies; when the test ends the banks must still equal them."""
    kept = []

    def keep(*banks: Bank) -> None:
        for bank in banks:
            kept.append((bank, copy.deepcopy(bank.tensors), copy.deepcopy(bank.labels)))

    yield keep
    for bank, tensors, labels in kept:
        for name, tensor in tensors.items():
            assert torch.equal(bank.tensors[name], tensor), f"{name} was changed"
        for name, values in labels.items():
            assert (bank.labels[name] == values).all(), f"label {name} was changed"


@pytest.fixture(scope="session")
def trees(trained) -> Bank:
    """Two trees of four leaves each, with all of their nodes."""
    from hrebasin.merging.tree import merge_tree

    bank = trained.relabel(group=np.repeat([0, 1], 4), node=np.tile(np.arange(4), 2))
    return Bank.concat([replace(each, history=None) for each in (bank, *merge_tree(bank, leaves=4)[1:])])


@pytest.fixture(scope="session")
def measured(trees, train_images, test_images):
    """The data set of every open question, asked of `trees`; 30 images are attacked."""
    from hrebasin.evaluation import evaluate
    from hrebasin.lipschitz import bounds
    from hrebasin.study import questions
    from hrebasin.study.questions.strong_attacks import last_stage
    from hrebasin.study.questions.training_recipes import Variant

    measure = {stage: questions.load(stage).measure for stage in questions.OPEN}
    leaves, given = trees.where(method="unmerged"), (train_images, test_images)
    attacked = {"attacked": 30, "epsilons": [0.0, 0.01, 0.02, 0.1]}
    stopped = train(trees.architecture, train_images, [0, 4], RECIPE, snapshots=[2, 4]).where(method="stopped")
    stopped = replace(stopped, history=None).relabel(group=stopped.labels["seed"] // 4, node=0)
    networks = Bank.concat([trees, stopped])

    def controls():
        families = {"shares": [0.8, 1.0], "sets": 2, "searched": [0.0, 0.02], "steps": 3, "matched": 96}
        return measure["controls"](networks, *given, RECIPE, **families, **attacked)

    def strong():
        sources = {"transfer": leaves.select([0]), "transfer-merged": last_stage(trees)}
        tries = {"epsilons": attacked["epsilons"], "sources": sources, "steps": 3, "restarts": 1, "queries": 10}
        return measure["strong"](networks, test_images.first(30), **tries)

    def mergers():
        return measure["mergers"](
            leaves,
            test_images,
            train_images,
            rivals=["cycle-consistent", "correlations", "straight-through", "star"],
            sizes=[2, 4],
            limits=[1, 100],
            orders=2,
            attacked=30,
            epsilons=[0.0, 0.015, 0.02, 0.1],
        )

    def scale():
        few = test_images.first(40)
        regularity = bounds.measure(trees, few.pixels, few.labels, bounded=3, radii=[0.05])
        return measure["scale"](trees, regularity, evaluate(trees, test_images).accuracy)

    def repair():
        return measure["repair"](leaves, train_images.pixels, test_images, **attacked)

    def recipes():
        ways = [Variant("as it is", RECIPE, (8, 6), 0), Variant("wide, of few images", RECIPE, (12, 6), 80)]
        each = [measure["recipes"](way, *given, group=g, leaves=4, **attacked) for way in ways for g in (0, 1)]
        return xr.concat(each, dim="model")

    asked = (controls, strong, mergers, scale, repair, recipes)
    return Lazily({question.__name__: question for question in asked})
