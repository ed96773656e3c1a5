import itertools
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hrebasin import Architecture, Recipe, train
from hrebasin.random_streams import generator
from hrebasin.training import batches, run
from hrebasin.training import train as training
from hrebasin.training.batches import Batches
from hrebasin.training.run import initial_bank


def assert_same(a, b):
    for name, tensor in a.tensors.items():
        assert torch.equal(tensor, b.tensors[name]), name


def draw_weights(architecture, seed):
    stream = generator(f"initial-weights/{seed}")
    weights = {}
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(architecture.units), start=1):
        bound = 1 / math.sqrt(fan_in)
        for name, shape in ((f"fc{number}.weight", (fan_out, fan_in)), (f"fc{number}.bias", (fan_out,))):
            weights[name] = torch.empty(shape).uniform_(-bound, bound, generator=stream).double().numpy()
    return weights


def gradients_by_hand(weights, x, labels, recipe):
    """Loss of each image, right answers and gradients of mean loss plus penalties, by the chain rule."""
    depth = len(weights) // 2
    inputs = [x]
    for number in range(1, depth + 1):
        y = inputs[-1] @ weights[f"fc{number}.weight"].T + weights[f"fc{number}.bias"]
        inputs.append(np.maximum(y, 0) if number < depth else y)
    logits = inputs.pop()
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    shares = exponentials / exponentials.sum(1, keepdims=True)
    rows = np.arange(len(x))
    losses, right = -np.log(shares[rows, labels]), logits.argmax(1) == labels
    delta = shares.copy()
    delta[rows, labels] -= 1
    delta /= len(x)
    gradients = {}
    for number in range(depth, 0, -1):
        gradients[f"fc{number}.weight"] = delta.T @ inputs[number - 1]
        gradients[f"fc{number}.bias"] = delta.sum(0)
        delta = (delta @ weights[f"fc{number}.weight"]) * (inputs[number - 1] > 0)
    for name, w in weights.items():
        gradients[name] += recipe.l1 * np.sign(w) + 2 * recipe.l2 * w
    return losses, right, gradients


def train_by_hand(architecture, images, seed, recipe):
    """One network in float64 NumPy, from the definitions of the recipe; weights, losses and accuracies."""
    mean, std = (np.reshape(v, (1, -1, 1, 1)) for v in (architecture.mean, architecture.std))
    x = ((images.pixels.numpy() / 255 - mean) / std).reshape(len(images), -1)
    labels, n = images.labels.numpy(), len(images)
    weights = draw_weights(architecture, seed)
    first, second = ({name: np.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    total, step = recipe.epochs * math.ceil(n / recipe.batch_size), 0
    history = []
    for epoch in range(recipe.epochs):
        order = torch.randperm(n, generator=generator(f"batch-order/{seed}/{epoch}")).numpy()
        seen = []
        for start in range(0, n, recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            losses, right, gradients = gradients_by_hand(weights, x[batch], labels[batch], recipe)
            seen.append((losses.sum(), right.sum()))
            rate = recipe.learning_rate * (1 + math.cos(math.pi * step / total)) / 2
            step += 1
            for name, w in weights.items():
                g = gradients[name] + recipe.weight_decay * w
                if recipe.optimizer == "sgd":
                    first[name] = recipe.momentum * first[name] + g
                    update = first[name]
                else:
                    first[name] = 0.9 * first[name] + 0.1 * g
                    second[name] = 0.999 * second[name] + 0.001 * g**2
                    update = (first[name] / (1 - 0.9**step)) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
                weights[name] = w - rate * update
        history.append(np.sum(seen, axis=0) / n)
    return weights, *np.transpose(history)


SGD = Recipe(optimizer="sgd", learning_rate=0.2, batch_size=20, epochs=4)  # 96 images: the last batch has 16
ADAM = Recipe(learning_rate=2e-2, batch_size=20, epochs=4)


@pytest.mark.parametrize(
    "recipe",
    [
        SGD,
        replace(SGD, momentum=0.0, learning_rate=0.5),
        replace(SGD, weight_decay=1e-2),
        replace(SGD, l1=1e-3),
        replace(SGD, l2=1e-2),
        ADAM,
        replace(ADAM, weight_decay=1e-2),
        replace(ADAM, l1=1e-3),
        replace(ADAM, l2=1e-2, batch_size=96, epochs=8),
    ],
    ids=lambda recipe: f"{recipe.optimizer}-{recipe.momentum}-{recipe.weight_decay}-{recipe.l1}-{recipe.l2}",
)
def test_training_equals_numpy(architecture, train_images, recipe):
    bank = train(architecture, train_images, [7], recipe)
    weights, losses, accuracies = train_by_hand(architecture, train_images, 7, recipe)
    for name, expected in weights.items():  # float32 against float64 over 20 steps
        np.testing.assert_allclose(bank.tensors[name][0], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(bank.history.train_loss.sel(model=bank.history.model[0]), losses, rtol=1e-5)
    np.testing.assert_allclose(bank.history.train_accuracy[0], accuracies)


def test_initial_weights_come_from_named_streams(architecture):
    bank = initial_bank(architecture, [3, 17])
    for position, seed in enumerate((3, 17)):
        for name, expected in draw_weights(architecture, seed).items():
            np.testing.assert_array_equal(bank.tensors[name][position], expected)


# ---- seeds


def test_order_and_shard_do_not_matter_bit_for_bit(architecture, train_images, trained, recipe):
    shard = train(architecture, train_images, [5, 2], recipe)
    assert_same(shard, trained.select([5, 2]))
    np.testing.assert_array_equal(shard.history.train_loss, trained.history.train_loss[[5, 2]])
    assert shard.labels["seed"].tolist() == [5, 2]


def test_the_bank_size_does_not_matter(architecture, train_images, trained, recipe):
    bank = train(architecture, train_images, range(8), recipe, bank_size=3)
    for name, tensor in trained.tensors.items():
        # batched products differ in the last bits of float32, and 36 steps of Adam carry that on
        torch.testing.assert_close(bank.tensors[name], tensor, rtol=1e-3, atol=1e-4)


def test_another_seed_is_another_network(trained):
    for a, b in itertools.combinations(range(len(trained)), 2):
        assert all((tensor[a] != tensor[b]).any() for tensor in trained.tensors.values())


def test_the_number_of_threads_does_not_matter_bit_for_bit(architecture, train_images, trained, recipe):
    """Threads side by side, each on its own networks."""
    torch.set_num_threads(2)
    try:
        assert_same(train(architecture, train_images, range(8), recipe), trained)
        assert torch.get_num_threads() == 2  # a worker's own setting stays with it
    finally:
        torch.set_num_threads(1)


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
    batched = train(architecture, train_images, seeds, recipes, bank_size=5)
    for name, tensor in bank.tensors.items():
        torch.testing.assert_close(batched.tensors[name], tensor, rtol=1e-3, atol=1e-4)


def test_little_memory_changes_nothing(architecture, train_images, recipe, monkeypatch):
    recipe = replace(recipe, precision="bfloat16")
    kept = train(architecture, train_images, [3], recipe)
    monkeypatch.setattr(batches, "fitting", lambda *_, **__: 1)
    assert Batches(architecture, train_images, recipe).inputs is None
    assert_same(train(architecture, train_images, [3], recipe), kept)


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
    for name, tensor in bank.tensors.items():
        torch.testing.assert_close(tensor, trained.tensors[name][:7], rtol=1e-3, atol=1e-4)


def test_global_random_state_is_neither_used_nor_changed(architecture, train_images, trained, recipe):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    bank = train(architecture, train_images, [1], recipe)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(bank, trained.select([1]))


def test_augmentation_depends_on_the_seed_alone_and_changes_no_image(shallow, train_images, recipe):
    pixels = train_images.pixels.clone()
    augmented = replace(recipe, crop_padding=1, flip=True)
    together = train(shallow, train_images, [0, 3], augmented)
    assert torch.equal(train_images.pixels, pixels)
    # nor does augmentation depend on the bank
    assert_same(train(shallow, train_images, [3], augmented), together.select([1]))
    batched = train(shallow, train_images, [0, 3], augmented, bank_size=2)
    torch.testing.assert_close(batched.tensors["fc1.weight"], together.tensors["fc1.weight"], rtol=1e-3, atol=1e-4)


# ---- what training does


def test_the_networks_learn_their_images(trained, test_images):
    history = trained.history
    assert trained.labels["method"].tolist() == ["unmerged"] * 8
    assert trained.labels["node"].tolist() == history.seed.values.tolist() == list(range(8))
    assert (history.seconds > 0).all()
    assert (history.train_loss.isel(epoch=-1) < history.train_loss.isel(epoch=0)).all()
    assert history.epoch.values.tolist() == list(range(1, 7))
    right = trained(test_images.pixels).argmax(-1) == test_images.labels
    assert right.double().mean() > 0.7  # four classes


def test_bfloat16_products_keep_float32_weights(architecture, train_images, trained, recipe):
    bank = train(architecture, train_images, [3], replace(recipe, precision="bfloat16"))
    assert all(tensor.dtype == torch.float32 for tensor in bank.tensors.values())
    expected = trained.history.train_loss[3, -1].item()
    assert bank.history.train_loss[0, -1].item() == pytest.approx(expected, rel=0.1)
    assert (bank.tensors["fc1.weight"] != trained.tensors["fc1.weight"][3]).any()


def crops_and_flips(image, padding, flip):
    """All images that augmentation may give, {(top, left, mirrored): image}, cut from the padded one."""
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    _, height, width = image.shape
    return {
        (top, left, mirrored): crop[..., ::-1] if mirrored else crop
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
        for mirrored in ((False, True) if flip else (False,))
        for crop in [padded[:, top : top + height, left : left + width]]
    }


def augmentations(images, seed, *, padding, flip):
    """Crop and flip (top, left, mirrored) that each image gets in training, (epoch, image)."""
    architecture = Architecture((32,), 4, (2, 3, 4), (0.0, 0.0), (1.0, 1.0))  # whose inputs are the pixels
    made, found = Batches(architecture, images, Recipe(batch_size=48, crop_padding=padding, flip=flip)), []
    for epoch in range(12):
        order = torch.randperm(96, generator=generator(f"batch-order/{seed}/{epoch}"))
        given = torch.cat([inputs[0] for inputs, _ in made.epoch([seed], epoch)])
        pixels = (255 * given).round().to(torch.uint8).view(images.pixels.shape).numpy()
        for number, image in zip(order, pixels, strict=True):
            candidates = crops_and_flips(images.pixels[number].numpy(), padding, flip)
            (match,) = [key for key, candidate in candidates.items() if (candidate == image).all()]
            found.append(match)
    return np.array(found).reshape(12, len(images), 3)


@pytest.fixture(scope="module")
def oblong_images(make_images):
    """Not square, so that a mixed-up axis shows."""
    return make_images("train", 96, shape=(2, 3, 4), noise=40)


@pytest.mark.parametrize(("padding", "flip"), [(1, True), (1, False), (0, True)])
def test_augmented_images_are_crops_and_flips(oblong_images, padding, flip):
    found = augmentations(oblong_images, 0, padding=padding, flip=flip).reshape(-1, 3)
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == (2 * padding + 1) ** 2 * (1 + flip)  # every crop and flip occurs,
    assert np.abs(counts - counts.mean()).max() < 5 * math.sqrt(counts.mean())  # about equally often


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_cut_on_a_cpu_as_by_indexing(dtype):
    stream = generator("cut")
    source = torch.rand(9, 3, 7, 10, generator=stream).to(dtype)
    rows, top, left = (torch.randint(0, most, (50,), generator=stream) for most in (9, 3, 5))
    given = source, rows, top, left, torch.rand(50, generator=stream) < 0.5, (5, 6)
    assert torch.equal(batches._cut_on_cpu(*given), batches.cut_by_index(*given))


def test_augmentation_differs_between_epochs_and_seeds(oblong_images):
    first, again, other = (augmentations(oblong_images, seed, padding=1, flip=True) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    # 18 equally likely draws agree by chance in 5 or 6 of 96 images
    assert (first == other).all(-1).mean() < 0.1
    assert (first[0] == first[1]).all(-1).mean() < 0.2


# ---- interruption


class Steps:
    """Counts optimizer steps, and stops the training before a given one."""

    def __init__(self, stop=None):
        self.count, self.stop = 0, stop

    def __enter__(self):
        self.hook = register_optimizer_step_pre_hook(self._before)
        return self

    def _before(self, *_):
        if self.count == self.stop:
            raise KeyboardInterrupt
        self.count += 1

    def __exit__(self, *_):
        self.hook.remove()


@pytest.mark.parametrize("bank_size", [1, 3])
@pytest.mark.parametrize("recipe", [replace(SGD, flip=True), ADAM], ids=["sgd", "adam"])
def test_an_interrupted_training_continues_bit_for_bit(shallow, train_images, tmp_path, monkeypatch, recipe, bank_size):
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0)
    arguments = (shallow, train_images, [0, 1, 2], recipe)
    whole = train(*arguments, bank_size=bank_size)
    # 20 steps a run: stops in the second epoch of the first run, or of the second
    stop = 7 if bank_size == 3 else 27
    with Steps(stop), pytest.raises(KeyboardInterrupt):
        train(*arguments, bank_size=bank_size, checkpoints=tmp_path)
    with Steps() as steps:
        continued = train(*arguments, bank_size=bank_size, checkpoints=tmp_path)
    assert steps.count == 20 * (3 // bank_size) - stop + 2  # the two steps of the open epoch are taken again
    assert_same(continued, whole)
    for name in ("train_loss", "train_accuracy"):
        np.testing.assert_array_equal(continued.history[name], whole.history[name])
    assert (continued.history.seconds > 0).all()
    with Steps() as steps:
        assert_same(train(*arguments, bank_size=bank_size, checkpoints=tmp_path), whole)
    assert steps.count == 0


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
    with Steps() as steps:
        continued = train(shallow, train_images, [0, 1, 2], ADAM, checkpoints=tmp_path)
    assert steps.count == 35, "60, less 20 of the first network, trained over there, and 5 of the second's first epoch"
    assert_same(continued, train(shallow, train_images, [0, 1, 2], ADAM))


def test_a_checkpoint_serves_only_the_same_training_by_the_same_code(
    shallow, train_images, make_images, tmp_path, monkeypatch
):
    def steps(recipe=ADAM, images=train_images):
        with Steps() as steps:
            bank = train(shallow, images, [0], recipe, checkpoints=tmp_path)
        assert_same(bank, train(shallow, images, [0], recipe))
        return steps.count

    assert steps() == 20
    assert steps() == 0
    assert steps(replace(ADAM, learning_rate=1e-2)) == 20
    assert steps(images=make_images("other", 96)) == 20
    monkeypatch.setattr(run, "module_digest", lambda name: f"another {name}")
    assert steps() == 20


def test_a_damaged_checkpoint_is_not_used(shallow, train_images, tmp_path):
    whole = train(shallow, train_images, [0], ADAM, checkpoints=tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=f"{path.name} or a copy beside it is damaged and not used"):
        assert_same(train(shallow, train_images, [0], ADAM, checkpoints=tmp_path), whole)


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
    min(tmp_path.glob("*-*")).unlink()
    with pytest.warns(UserWarning, match="or a copy beside it is damaged and not used"):
        assert_same(train(shallow, train_images, [3, 5], ADAM, **given, checkpoints=tmp_path), bank)


def test_snapshots_lie_within_the_training(shallow, train_images):
    for snapshots in ([0], [ADAM.epochs], [2, 1], [1, 1], [float("nan")]):
        with pytest.raises(ValueError, match=f"increase between 0 and the recipe's {ADAM.epochs} epochs, got"):
            train(shallow, train_images, [0], ADAM, snapshots=snapshots)
    with pytest.raises(ValueError, match="of networks without a penalty"):
        train(shallow, train_images, [0], replace(ADAM, l2=1e-3), snapshots=[1])
