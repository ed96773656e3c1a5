import itertools
import math
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hrebasin import Architecture, Recipe, networks, train
from hrebasin.random_streams import generator
from hrebasin.training import batches, run
from hrebasin.training import train as training
from hrebasin.training.batches import Batches


def assert_same(a, b):
    for name, tensor in a.tensors.items():
        assert torch.equal(tensor, b.tensors[name]), name


def assert_close(a, b):
    """Batched products differ in the last bits of float32, and 36 steps of Adam carry that on."""
    for name, tensor in a.tensors.items():
        torch.testing.assert_close(tensor, b.tensors[name], rtol=1e-3, atol=1e-4)


def draw_weights(architecture, seed):
    stream = generator(f"initial-weights/{seed}")
    weights = {}
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(architecture.units), start=1):
        bound = 1 / math.sqrt(fan_in)
        for name, shape in ((f"fc{number}.weight", (fan_out, fan_in)), (f"fc{number}.bias", (fan_out,))):
            weights[name] = torch.empty(shape).uniform_(-bound, bound, generator=stream).double()
    return weights


def train_by_hand(architecture, images, seed, recipe):
    """One network in float64, from the definitions of the recipe; weights, losses and accuracies."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (architecture.mean, architecture.std))
    x, n = ((images.pixels.double() / 255 - mean) / std).flatten(1), len(images)
    weights = draw_weights(architecture, seed)
    first, second = ({name: torch.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    total, step, history = recipe.epochs * math.ceil(n / recipe.batch_size), 0, []
    for epoch in range(recipe.epochs):
        seen = np.zeros(2)
        for batch in torch.randperm(n, generator=generator(f"batch-order/{seed}/{epoch}")).split(recipe.batch_size):
            for w in weights.values():
                w.requires_grad_()
            h, labels = x[batch], images.labels[batch]
            for number in range(1, len(weights) // 2 + 1):
                h = (h.clamp(min=0) if number > 1 else h) @ weights[f"fc{number}.weight"].T + weights[
                    f"fc{number}.bias"
                ]
            loss = (h.logsumexp(1) - h.gather(1, labels[:, None])[:, 0]).mean()
            penalty = sum(recipe.l1 * w.abs().sum() + recipe.l2 * (w**2).sum() for w in weights.values())
            gradients = torch.autograd.grad(loss + penalty, list(weights.values()))
            seen += np.array([loss.item() * len(batch), (h.argmax(1) == labels).sum().item()])
            rate, step = recipe.learning_rate * (1 + math.cos(math.pi * step / total)) / 2, step + 1
            for (name, w), gradient in zip(weights.items(), gradients, strict=True):
                w = w.detach()
                g = gradient + recipe.weight_decay * w
                if recipe.optimizer == "sgd":
                    update = first[name] = recipe.momentum * first[name] + g
                else:
                    first[name] = 0.9 * first[name] + 0.1 * g
                    second[name] = 0.999 * second[name] + 0.001 * g**2
                    update = (first[name] / (1 - 0.9**step)) / ((second[name] / (1 - 0.999**step)).sqrt() + 1e-8)
                weights[name] = w - rate * update
        history.append(seen / n)
    return weights, *np.transpose(history)


SGD = Recipe(optimizer="sgd", learning_rate=0.2, batch_size=20, epochs=4)  # 96 images: the last batch has 16
ADAM = Recipe(learning_rate=2e-2, batch_size=20, epochs=4)


RECIPES = [
    SGD,
    replace(SGD, momentum=0.0, learning_rate=0.5),
    replace(SGD, weight_decay=1e-2, l1=1e-3),
    ADAM,
    replace(ADAM, weight_decay=1e-2),
    replace(ADAM, l2=1e-2, batch_size=96, epochs=8),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=range(len(RECIPES)))
def test_training_equals_the_definition_in_float64(architecture, train_images, recipe):
    bank = train(architecture, train_images, [7], recipe)
    weights, losses, accuracies = train_by_hand(architecture, train_images, 7, recipe)
    for name, expected in weights.items():  # float32 against float64 over 20 steps
        np.testing.assert_allclose(bank.tensors[name][0], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(bank.history.train_loss.sel(model=bank.history.model[0]), losses, rtol=1e-5)
    np.testing.assert_allclose(bank.history.train_accuracy[0], accuracies)


# ---- seeds


def test_order_and_bank_do_not_matter_and_global_random_state_stays(architecture, train_images, trained, recipe):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    shard = train(architecture, train_images, [5, 2], recipe)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(shard, trained.select([5, 2]))
    np.testing.assert_array_equal(shard.history.train_loss, trained.history.train_loss[[5, 2]])
    assert shard.labels["seed"].tolist() == [5, 2]
    assert_close(train(architecture, train_images, [2, 5, 7], recipe, bank_size=2), trained.select([2, 5, 7]))
    for a, b in itertools.combinations(range(len(trained)), 2):
        assert all((tensor[a] != tensor[b]).any() for tensor in trained.tensors.values())


def test_networks_with_and_without_penalty_train_together(architecture, train_images, trained, recipe):
    recipes = [recipe, *(replace(recipe, **penalty) for penalty in ({"l1": 1e-3}, {"l2": 1e-3}, {"l2": 3e-3})), recipe]
    seeds = [2, 2, 2, 2, 5]
    bank = train(architecture, train_images, seeds, recipes)
    assert_same(bank.select([0, 4]), trained.select([2, 5]))
    for position in (1, 2, 3):
        alone = train(architecture, train_images, [2], recipes[position])
        assert_same(bank.select([position]), alone)
    assert bank.labels["method"].tolist() == ["unmerged", "l1", "l2", "l2", "unmerged"]
    assert bank.labels["strength"].tolist() == [0, 1e-3, 1e-3, 3e-3, 0]
    assert_close(train(architecture, train_images, seeds, recipes, bank_size=5), bank)


def test_on_a_gpu_the_bank_is_halved_until_it_fits(architecture, train_images, trained, recipe, monkeypatch):
    """As on a GPU, with a processor that reports too little memory for more than two networks."""

    class Cramped(training.TrainingRun):
        def __init__(self, batches, seeds, *arguments):
            if len(seeds) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(batches, seeds, *arguments)

    monkeypatch.setattr(training, "TrainingRun", Cramped)
    monkeypatch.setattr(training, "_on_threads", lambda finish, n, size, _: training._one_by_one(finish, n, size))
    with pytest.warns(UserWarning, match=r"out of GPU memory with [84] networks at once"):
        bank = train(architecture, train_images, range(7), recipe, bank_size=8)
    assert bank.labels["seed"].tolist() == list(range(7))
    assert_close(bank, trained.select(range(7)))


def test_augmentation_depends_on_the_seed_alone_and_changes_no_image(shallow, train_images, recipe):
    pixels = train_images.pixels.clone()
    augmented = replace(recipe, crop_padding=1, flip=True)
    together = train(shallow, train_images, [0, 3], augmented)
    assert torch.equal(train_images.pixels, pixels)
    assert_same(train(shallow, train_images, [3], augmented), together.select([1]))
    assert_close(train(shallow, train_images, [0, 3], augmented, bank_size=2), together)


# ---- what training does


def test_the_networks_learn_their_images(trained, test_images):
    history = trained.history
    assert trained.labels["node"].tolist() == history.seed.values.tolist() == list(range(8))
    assert (history.train_loss.isel(epoch=-1) < history.train_loss.isel(epoch=0)).all()
    right = trained(test_images.pixels).argmax(-1) == test_images.labels
    assert right.double().mean() > 0.7  # four classes


def test_bfloat16_products_keep_float32_weights_and_little_memory_changes_nothing(
    architecture, train_images, trained, recipe, monkeypatch
):
    recipe = replace(recipe, precision="bfloat16")
    bank = train(architecture, train_images, [3], recipe)
    assert all(tensor.dtype == torch.float32 for tensor in bank.tensors.values())
    expected = trained.history.train_loss[3, -1].item()
    assert bank.history.train_loss[0, -1].item() == pytest.approx(expected, rel=0.1)
    assert (bank.tensors["fc1.weight"] != trained.tensors["fc1.weight"][3]).any()
    monkeypatch.setattr(batches, "fitting", lambda *_, **__: 1)
    assert Batches(architecture, train_images, recipe).inputs is None
    assert_same(train(architecture, train_images, [3], recipe), bank)


def augmentations(images, seed, *, padding, flip):
    """Crop and flip (top, left, mirrored) that each image gets in training, (epoch, image, 3)."""
    architecture = Architecture((32,), 4, (2, 3, 4), (0.0, 0.0), (1.0, 1.0))  # whose inputs are the pixels
    made, found = Batches(architecture, images, Recipe(batch_size=48, crop_padding=padding, flip=flip)), []
    keys = list(itertools.product(range(2 * padding + 1), range(2 * padding + 1), (False, True)[: 1 + flip]))
    for epoch in range(8):
        order = torch.randperm(96, generator=generator(f"batch-order/{seed}/{epoch}"))
        given = torch.cat([inputs[0] for inputs, _ in made.epoch([seed], epoch)])
        pixels = (255 * given).round().to(torch.uint8).view(images.pixels.shape)
        padded = torch.nn.functional.pad(images.pixels[order], (padding,) * 4)
        for image, around in zip(pixels, padded, strict=True):
            crops = [(around[:, top : top + 3, left : left + 4], mirrored) for top, left, mirrored in keys]
            same = [torch.equal(crop.flip(-1) if mirrored else crop, image) for crop, mirrored in crops]
            assert sum(same) == 1
            found.append(keys[same.index(True)])
    return np.array(found).reshape(8, len(images), 3)


@pytest.mark.parametrize(("padding", "flip"), [(1, True), (1, False), (0, True)])
def test_augmented_images_are_crops_and_flips_that_differ_by_epoch_and_seed(make_images, padding, flip):
    oblong = make_images("train", 96, shape=(2, 3, 4), noise=40)  # so that a mixed-up axis shows
    found, again, other = (augmentations(oblong, seed, padding=padding, flip=flip) for seed in (0, 0, 1))
    counts = np.unique(found.reshape(-1, 3), axis=0, return_counts=True)[1]
    assert len(counts) == (2 * padding + 1) ** 2 * (1 + flip)  # every crop and flip occurs,
    assert np.abs(counts - counts.mean()).max() < 5 * math.sqrt(counts.mean())  # about equally often
    np.testing.assert_array_equal(found, again)
    for one, another in ((found, other), (found[0], found[1])):
        assert (one == another).all(-1).mean() < 0.1 + 1 / len(counts)  # as many agree by chance, and some


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_cut_on_a_cpu_as_by_indexing(dtype):
    stream = generator("cut")
    source = torch.rand(9, 3, 7, 10, generator=stream).to(dtype)
    rows, top, left = (torch.randint(0, most, (50,), generator=stream) for most in (9, 3, 5))
    given = source, rows, top, left, torch.rand(50, generator=stream) < 0.5, (5, 6)
    assert torch.equal(batches._cut_on_cpu(*given), batches.cut_by_index(*given))


# ---- interruption


@contextmanager
def counted(stop=None):
    """A list that grows by one with every optimizer step; the training stops before a given one."""
    taken = []

    def before(*_):
        if len(taken) == stop:
            raise KeyboardInterrupt
        taken.append(1)

    hook = register_optimizer_step_pre_hook(before)
    try:
        yield taken
    finally:
        hook.remove()


def test_an_interrupted_training_continues_bit_for_bit(shallow, train_images, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0)
    arguments = (shallow, train_images, [0, 1, 2], replace(SGD, flip=True))
    whole = train(*arguments, bank_size=3)
    with counted(7), pytest.raises(KeyboardInterrupt):
        train(*arguments, bank_size=3, checkpoints=tmp_path)
    with counted() as steps:
        continued = train(*arguments, bank_size=3, checkpoints=tmp_path)
    assert len(steps) == 20 - 7 + 2, "the two steps of the second epoch are taken again"
    assert_same(continued, whole)
    for name in ("train_loss", "train_accuracy"):
        np.testing.assert_array_equal(continued.history[name], whole.history[name])
    assert (continued.history.seconds > 0).all()


KILLED = """
import os, signal, torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from hrebasin import Architecture, Images, Recipe, train
from hrebasin.training import run
torch.set_num_threads(1)
run.CHECKPOINT_SECONDS = 0
steps = iter(range(1, 28))
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL) if next(steps, None) is None else None
register_optimizer_step_pre_hook(kill)
images = Images(*torch.load("images.pt"), {classes}, "test")
train({architecture}, images, [0, 1, 2], {recipe}, checkpoints=".")
"""


def test_a_training_that_was_killed_in_another_process_continues_bit_for_bit(shallow, train_images, tmp_path):
    torch.save((train_images.pixels, train_images.labels), tmp_path / "images.pt")
    code = KILLED.format(classes=train_images.classes, architecture=shallow, recipe=ADAM)
    environment = os.environ | {"PYTHONHASHSEED": "4711"}
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert killed.returncode == -signal.SIGKILL
    with counted() as steps:
        continued = train(shallow, train_images, [0, 1, 2], ADAM, checkpoints=tmp_path)
    assert len(steps) == 35, "60, less 20 of the first network, trained over there, and 5 of the second's first epoch"
    assert_same(continued, train(shallow, train_images, [0, 1, 2], ADAM))


def test_a_checkpoint_serves_only_the_same_training_by_the_same_code(
    shallow, train_images, make_images, tmp_path, monkeypatch
):
    def steps(recipe=ADAM, images=train_images):
        with counted() as taken:
            bank = train(shallow, images, [0], recipe, checkpoints=tmp_path)
        assert_same(bank, train(shallow, images, [0], recipe))
        return len(taken)

    assert steps() == 20
    assert steps() == 0
    assert steps(replace(ADAM, learning_rate=1e-2)) == 20
    assert steps(images=make_images("other", 96)) == 20
    monkeypatch.setattr(run, "module_digest", lambda name: f"another {name}")
    assert steps() == 20


def test_snapshots_are_the_same_training_cut_short(shallow, train_images, tmp_path):
    whole, given = train(shallow, train_images, [3, 5], ADAM), {"snapshots": [0.4, 2]}
    bank = train(shallow, train_images, [3, 5], ADAM, **given)
    assert bank.labels["method"].tolist() == ["unmerged"] * 2 + ["stopped"] * 4
    assert_same(bank.select([0, 1]), whole)
    stopped = bank.where(method="stopped", strength=2)
    assert (stopped.labels["seed"].tolist(), stopped.labels["node"].tolist()) == ([3, 5], [0, 1])
    losses = whole.history.train_loss.values.copy()
    losses[:, 2:] = np.nan
    np.testing.assert_array_equal(stopped.history.train_loss, losses)
    shorter_recipe = train(shallow, train_images, [3, 5], replace(ADAM, epochs=2))  # whose learning rate falls sooner
    assert not torch.equal(stopped.tensors["fc1.weight"], shorter_recipe.tensors["fc1.weight"])
    for _ in range(2):  # trained, then read from checkpoints
        assert_same(train(shallow, train_images, [3, 5], ADAM, **given, checkpoints=tmp_path), bank)
    for damage in (lambda file: file.write_bytes(file.read_bytes()[:-100]), Path.unlink):
        damage(min(tmp_path.glob("*-*")))
        with pytest.warns(UserWarning, match="or a copy beside it is damaged and not used"):
            assert_same(train(shallow, train_images, [3, 5], ADAM, **given, checkpoints=tmp_path), bank)


@pytest.mark.parametrize("n_models", [1, 3])
def test_products_in_bfloat16_are_rounded_once_with_or_without_instructions_for_them(n_models, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n_models, n, 300, generator=draw).bfloat16() for n in (64, 50))
    bias = torch.randn(n_models, 50, generator=draw).bfloat16()
    exact = (x.double() @ weight.double().mT + bias.double()[:, None]).bfloat16()
    for native in (True, False):
        monkeypatch.setattr(networks, "multiplies_bfloat16", lambda native=native: native)
        assert (networks._affine(x, weight, bias) != exact).float().mean() < 0.01
