"""Training from named seeds: network 17 is the same network in whichever bank, shard or order it is trained."""

import math
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from ..architectures import NetworkArchitecture
from ..bank import Bank
from ..checks import check_images
from ..images.sources import Images
from ..networks import Architecture
from ..progress import track
from ..resources import fitting, halving, limited_to, multiplies_bfloat16, plain_torch
from .batches import Batches
from .recipe import Recipe
from .run import TrainingRun

BANK_SIZE = 128  # networks in one product on a GPU, at most; more are hardly faster


@plain_torch()
def train(
    architecture: Architecture | NetworkArchitecture,
    images: Images,
    seeds: Sequence[int],
    recipe: Recipe | Sequence[Recipe] | None = None,
    *,
    device: str = "cpu",
    bank_size: int | None = None,
    checkpoints: Path | None = None,
    snapshots: Sequence[float] = (),
    label: str = "training",
) -> Bank:
    """Train one network for each seed.

    On a CPU every network is trained by one thread, as many side by side as torch has threads: this is faster than all
    threads on one network, and the number of threads does not show in the results.

    Args:
        architecture: of all networks; must fit the images.
        images: training images.
        seeds: network ``s`` draws its weights, batch order and augmentation from streams named after ``s``.
        recipe: see `Recipe`; one for all networks or one for each, which then differ in their penalty alone.
        device: where to train.
        bank_size: networks in one product; by default 1 on a CPU (fastest there, and bit for bit the same in any bank),
            and what fits into half of a GPU's free memory, at most `BANK_SIZE`. Where that turns out to be too much, it
            is halved.
        checkpoints: folder for states, written after an epoch when `CHECKPOINT_SECONDS` have passed (more for large
            banks) and at the end; training continues from what it finds there.
        snapshots: epochs, also parts of one, after which copies of the networks are kept: early-stopped ones, on the
            learning rate of the whole recipe.
        label: name of the progress report.

    Returns:
        A bank of the networks and behind them of their snapshots, method ``"stopped"`` with their epochs as
        ``strength``. Its ``history`` holds ``train_loss``, ``train_accuracy`` (model, epoch), running means over an
        epoch in training mode, not a number after the end, and ``seconds`` (model,), a network's share in the wall
        time.

    Raises:
        ValueError: images that do not fit the architecture, networks of the same seed and penalty, recipes that differ
            in more than their penalty, snapshots that do not increase within the recipe's epochs or of networks
            with a penalty.
        DivergedError: a loss that is not finite, or an accuracy at chance after the last epoch; names the seed.
    """
    seeds = [int(seed) for seed in seeds]
    recipes = _one_each(recipe or Recipe(), seeds)
    check_images(architecture, images)
    epochs, snapshots = recipes[0].epochs, [float(at) for at in snapshots]
    if sorted(set(snapshots)) != snapshots or not all(0 < at < epochs for at in snapshots):
        raise ValueError(f"snapshots must increase between 0 and the recipe's {epochs} epochs, got {snapshots}")
    if snapshots and any(r.l1 or r.l2 for r in recipes):
        raise ValueError(f"snapshots are kept of networks without a penalty, got {recipes}")
    slow = recipes[0].precision == "bfloat16" and not isinstance(architecture, Architecture)
    on_cpu = torch.device(device).type == "cpu"
    if slow and on_cpu and not multiplies_bfloat16():
        warnings.warn(
            "this processor has no instructions for bfloat16, which makes training far slower: take float32",
            stacklevel=3,
        )
    batches = Batches(architecture, images.to(device), recipes[0])
    if not on_cpu:
        most = fitting(network_bytes(architecture, recipes[0]), device=device, share=0.5, most=BANK_SIZE)
        bank_size = min(bank_size or most, len(seeds))
    stop = threading.Event()

    def finish(part: slice, side_by_side: int = 1) -> Bank:
        run = TrainingRun(batches, seeds[part], recipes[part], snapshots, device, checkpoints)
        return run.finish(progress, stop, side_by_side)

    with track(label=label, total=len(seeds) * epochs, unit="epoch") as progress:
        if on_cpu:
            trained = _on_threads(finish, len(seeds), bank_size or 1, stop)
        else:
            trained = _one_by_one(finish, len(seeds), bank_size)
    bank = Bank.concat(trained)
    bank = bank.select((bank.labels["method"] == "stopped").argsort(kind="stable"))  # snapshots behind
    return bank.relabel(node=[*range(len(seeds)), *(seeds.index(s) for s in bank.labels["seed"][len(seeds) :])])


def _on_threads(finish, n: int, bank_size: int, stop: threading.Event) -> list[Bank]:
    """All banks, each on one thread."""
    parts = [slice(start, start + bank_size) for start in range(0, n, bank_size)]
    side_by_side = min(len(parts), torch.get_num_threads())

    def alone(part: slice) -> Bank:
        with limited_to(1):
            return finish(part, side_by_side)

    with ThreadPoolExecutor(side_by_side) as pool:
        runs = [pool.submit(alone, part) for part in parts]
        try:
            return [run.result() for run in runs]
        except BaseException:  # also a keyboard interrupt: the others end their epoch, and the pool with them
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_by_one(finish, n: int, bank_size: int) -> list[Bank]:
    """All banks, one after the other; smaller ones once memory has not sufficed."""
    trained, start = [], 0
    while start < n:
        bank, bank_size = halving(lambda size: finish(slice(start, start + size)), bank_size, what="networks")  # noqa: B023
        trained.append(bank)
        start += len(bank)
    return trained


def network_bytes(architecture: Architecture, recipe: Recipe) -> int:
    """About how much memory the training of one network takes in a bank, beside the images."""
    mixed = recipe.precision == "bfloat16"
    parameters = architecture.n_parameters * (16 + 4 * mixed)  # weight, gradient, two moments; rounded weight, gradient
    inputs = math.prod(architecture.image_shape)
    # units of an MLP; of others as if every layer had as many values as the image
    others = (
        sum(architecture.units[1:]) if isinstance(architecture, Architecture) else len(architecture.layers) * inputs
    )
    # a batch in float32 with what normalising and rounding copy, and activations with their gradients
    return parameters + recipe.batch_size * (3 * inputs + 6 * others) * 4


def _one_each(recipe: Recipe | Sequence[Recipe], seeds: list[int]) -> list[Recipe]:
    """A recipe for each seed."""
    recipes = [recipe] * len(seeds) if isinstance(recipe, Recipe) else list(recipe)
    if len(recipes) != len(seeds):
        raise ValueError(f"{len(recipes)} recipes given for {len(seeds)} seeds")
    if not seeds or len(set(zip(seeds, recipes, strict=True))) != len(seeds):
        raise ValueError(f"seeds must be distinct and at least one, got {seeds}")
    for other in recipes:
        if replace(other, l1=0.0, l2=0.0) != replace(recipes[0], l1=0.0, l2=0.0):
            raise ValueError(f"recipes of one training may differ in l1 and l2 alone, got {recipes[0]} and {other}")
    return recipes
