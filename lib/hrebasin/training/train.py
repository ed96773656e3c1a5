"""Training from named seeds: network 17 is the same network in whichever bank, shard or order it is trained."""

import hashlib
import json
import math
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..bank import Bank
from ..checks import check_images
from ..digests import module_digest
from ..files import write_atomically
from ..images.sources import Images
from ..networks import Architecture
from ..progress import track
from ..random_streams import generator
from ..resources import fitting, halving, limited_to
from .batches import Batches
from .recipe import Recipe

BANK_SIZE = 128  # networks in one product on a GPU, at most; more are hardly faster
CHECKPOINT_SECONDS = 10.0  # between two states of unfinished networks; with moments, one is three times their weights
CHECKPOINT_SHARE = 0.05  # of the time, at most, for states of large banks
DISK = 0.5e9  # bytes/s that a slow disk takes


class DivergedError(RuntimeError):
    """A network whose training failed; the message names its seed."""


def initial_bank(architecture: Architecture, seeds: Sequence[int]) -> Bank:
    """Untrained networks: uniform in +-1/sqrt(fan in), PyTorch's default for linear layers.

    Network ``s`` draws from the stream ``initial-weights/s``.
    """
    streams = [generator(f"initial-weights/{seed}") for seed in seeds]
    tensors = {}
    for layer, fan_in in zip(architecture.layers, architecture.units[:-1], strict=True):
        bound = 1 / math.sqrt(fan_in)
        for name in (f"{layer}.weight", f"{layer}.bias"):
            shape = architecture.shapes[name]
            tensors[name] = torch.stack([torch.empty(shape).uniform_(-bound, bound, generator=g) for g in streams])
    return Bank(architecture, tensors, {"seed": list(seeds)})


def train(
    architecture: Architecture,
    images: Images,
    seeds: Sequence[int],
    recipe: Recipe | Sequence[Recipe] | None = None,
    *,
    device: str = "cpu",
    bank_size: int | None = None,
    checkpoints: Path | None = None,
    stop_after: int | None = None,
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
        stop_after: epochs after which training ends early, on the learning rate of the whole recipe; by default none.
        label: name of the progress report.

    Returns:
        A bank whose ``history`` holds ``train_loss``, ``train_accuracy`` (model, epoch), running means over an
        epoch in training mode, and ``seconds`` (model,), the share of a network in the wall time.

    Raises:
        ValueError: images that do not fit the architecture, networks of the same seed and penalty, recipes that differ
            in more than their penalty, an end beyond the recipe's.
        DivergedError: a loss that is not finite, or an accuracy at chance after the last epoch; names the seed.
    """
    seeds = [int(seed) for seed in seeds]
    recipes = _one_each(recipe or Recipe(), seeds)
    check_images(architecture, images)
    last = recipes[0].epochs if stop_after is None else stop_after
    if not 1 <= last <= recipes[0].epochs:
        raise ValueError(f"stop_after must lie within the recipe's {recipes[0].epochs} epochs, got {stop_after}")
    batches = Batches(architecture, images.to(device), recipes[0])
    if torch.device(device).type != "cpu":
        most = fitting(network_bytes(architecture, recipes[0]), device=device, share=0.5, most=BANK_SIZE)
        bank_size = min(bank_size or most, len(seeds))
    stop = threading.Event()

    def finish(part: slice, side_by_side: int = 1) -> Bank:
        return _Run(batches, seeds[part], recipes[part], last, device, checkpoints).finish(progress, stop, side_by_side)

    total = len(seeds) * last
    with track(label=label, total=total, unit="epoch") as progress:
        if torch.device(device).type == "cpu":
            trained = _on_threads(finish, len(seeds), bank_size or 1, stop)
        else:
            trained = _one_by_one(finish, len(seeds), bank_size)
    bank = Bank.concat(trained)
    methods = ["l1" if r.l1 else "l2" if r.l2 else "unmerged" for r in recipes]
    return bank.relabel(method=methods, strength=[r.l1 or r.l2 for r in recipes], node=np.arange(len(bank)))


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
    inputs, *others = architecture.units
    # a batch in float32 with what normalising and rounding copy, and activations with their gradients
    return parameters + recipe.batch_size * (3 * inputs + 6 * sum(others)) * 4


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


class Stopped(Exception):  # noqa: N818
    """Training that ends because another network's failed or was interrupted."""


class _Run:
    """Some networks trained together, with everything that a checkpoint must hold."""

    def __init__(self, batches, seeds, recipes, last, device, checkpoints):
        self.batches, self.seeds, self.recipes, self.recipe, self.last = batches, seeds, recipes, recipes[0], last
        self.architecture, self.images = batches.architecture, batches.images
        self.device, recipe = torch.device(device), recipes[0]
        bank = initial_bank(self.architecture, seeds)
        self.tensors = {name: tensor.to(device).requires_grad_() for name, tensor in bank.tensors.items()}
        self.parameters = list(self.tensors.values())
        # Products in bfloat16 take copies of the weights, which are rounded anew at every step.
        self.rounded = None
        if recipe.precision == "bfloat16":
            self.rounded = {n: torch.empty_like(t, dtype=torch.bfloat16) for n, t in self.tensors.items()}
        self.penalties = {
            power: torch.tensor([getattr(r, name) for r in recipes], device=device)
            for name, power in (("l1", 1), ("l2", 2))
            if any(getattr(r, name) for r in recipes)
        }
        options = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
        if recipe.optimizer == "adam":
            self.optimizer = torch.optim.Adam(self.parameters, **options)
        else:
            self.optimizer = torch.optim.SGD(self.parameters, momentum=recipe.momentum, **options)
        self.epoch, self.seconds, self.saved = 0, 0.0, time.perf_counter()
        # Large banks are written more rarely, so that writing takes a small part of the time.
        size = 3 * len(seeds) * sum(tensor[0].nbytes for tensor in self.tensors.values())
        self.pause = max(CHECKPOINT_SECONDS, size / (CHECKPOINT_SHARE * DISK))
        self.loss = torch.zeros(len(seeds), last, dtype=torch.float64)
        self.accuracy = torch.zeros(len(seeds), last, dtype=torch.float64)
        self.path = None
        if checkpoints is not None:
            how = [asdict(r) for r in recipes]
            code = module_digest("training.train")  # another version's training goes another way
            self.identity = json.dumps(
                [self.architecture.as_dict(), how, last, seeds, self.images.digest, str(device), code],
            )
            self.path = Path(checkpoints) / f"{hashlib.sha256(self.identity.encode()).hexdigest()[:24]}.safetensors"
            if self.path.is_file():
                self._resume()

    def finish(self, progress, stop: threading.Event, side_by_side: int) -> Bank:
        progress.update(self.epoch * len(self.seeds))
        while self.epoch < self.last:
            if stop.is_set():
                raise Stopped
            start = time.perf_counter()
            self._train_epoch()
            self.epoch += 1
            self.seconds += (time.perf_counter() - start) / side_by_side
            self._check_finite()
            finished = self.epoch == self.last
            if self.path is not None and (finished or time.perf_counter() - self.saved >= self.pause):
                self._checkpoint(moments=not finished)
            progress.update(len(self.seeds))
        if self.last == self.recipe.epochs:  # stopped early, a network may be as bad as that
            self._check_above_chance()
        tensors = {name: tensor.detach() for name, tensor in self.tensors.items()}
        epochs = xr.Variable("epoch", np.arange(1, self.last + 1), {"long_name": "epoch", "units": "1"})
        history = xr.Dataset(
            {
                "train_loss": (
                    ("model", "epoch"),
                    self.loss.numpy(),
                    {"long_name": "running training cross-entropy", "units": "nat"},
                ),
                "train_accuracy": (
                    ("model", "epoch"),
                    self.accuracy.numpy(),
                    {"long_name": "running training accuracy", "units": "1"},
                ),
                "seconds": (
                    "model",
                    np.full(len(self.seeds), self.seconds / len(self.seeds)),
                    {"long_name": "training time", "units": "s"},
                ),
            },
            coords={"epoch": epochs},
        )
        return Bank(self.architecture, tensors, {"seed": self.seeds}, history).to("cpu")

    def _train_epoch(self):
        recipe, n_steps = self.recipe, len(self.batches)
        loss_sum, n_right = torch.zeros(2, len(self.seeds), dtype=torch.float64, device=self.device)
        for step, (inputs, labels) in enumerate(self.batches.epoch(self.seeds, self.epoch)):
            done = (self.epoch * n_steps + step) / (recipe.epochs * n_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            losses, right = self._step(inputs, labels)
            loss_sum += losses * labels.shape[1]
            n_right += right
        self.loss[:, self.epoch] = (loss_sum / len(self.images)).cpu()
        self.accuracy[:, self.epoch] = (n_right / len(self.images)).cpu()

    def _step(self, inputs, labels):
        weights = self.tensors if self.rounded is None else self._round()
        outputs = self.architecture.logits(weights, inputs).float()
        losses = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none").view_as(
            labels
        )
        objective = losses.mean(1).sum()  # networks share nothing, so the sum separates into their gradients
        for power, strengths in self.penalties.items():
            size = sum(tensor.abs().pow(power).flatten(1).sum(1) for tensor in self.parameters)
            objective = objective + (strengths * size).sum()
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()
        for parameter, copy in zip(self.parameters, weights.values(), strict=True):
            if copy is not parameter:
                penalty = parameter.grad
                parameter.grad = copy.grad.float() if penalty is None else penalty.add_(copy.grad)
        self.optimizer.step()
        right = (outputs.detach().argmax(-1) == labels).sum(1)
        return losses.detach().mean(1).double(), right

    def _round(self) -> dict[str, torch.Tensor]:
        """Leaves in bfloat16 that gradients are taken at."""
        with torch.no_grad():
            torch._foreach_copy_(list(self.rounded.values()), self.parameters)
        return {name: tensor.detach().requires_grad_() for name, tensor in self.rounded.items()}

    def _check_finite(self):
        for seed, losses in zip(self.seeds, self.loss, strict=True):
            if not math.isfinite(losses[self.epoch - 1]):
                raise DivergedError(
                    f"the network of seed {seed} diverged: training loss {losses[self.epoch - 1]} in epoch "
                    f"{self.epoch} ({self.recipe})"
                )

    def _check_above_chance(self):
        counts = torch.bincount(self.images.labels.cpu(), minlength=self.architecture.n_classes)
        n = len(self.images)
        chance = counts.max().item() / n
        # three standard errors above always naming the commonest class
        threshold = chance + 3 * math.sqrt(chance * (1 - chance) / n)
        for seed, accuracies in zip(self.seeds, self.accuracy, strict=True):
            if accuracies[-1] <= threshold:
                raise DivergedError(
                    f"the network of seed {seed} learned nothing: training accuracy {accuracies[-1]:.4f} in the last "
                    f"epoch, chance is {chance:.4f} ({self.recipe})"
                )

    def _checkpoint(self, *, moments: bool):
        tensors = {f"parameter/{name}": tensor.detach() for name, tensor in self.tensors.items()}
        for name, tensor in self.tensors.items() if moments else ():
            for key, value in self.optimizer.state[tensor].items():
                if isinstance(value, torch.Tensor):
                    tensors[f"state/{key}/{name}"] = value
        tensors |= {"loss": self.loss, "accuracy": self.accuracy}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"identity": self.identity, "epoch": str(self.epoch), "seconds": str(self.seconds)}
        write_atomically(self.path, save(tensors, metadata))
        self.saved = time.perf_counter()

    def _resume(self):
        try:
            state = safe_open(self.path, framework="pt")
        except SafetensorError as error:
            warnings.warn(f"{self.path} is damaged and not used: {error}", stacklevel=2)
            return
        with state as file, torch.no_grad():
            metadata = file.metadata()
            self.epoch, self.seconds = int(metadata["epoch"]), float(metadata["seconds"])
            for key in file.keys():  # noqa: SIM118
                value = file.get_tensor(key)
                kind, _, rest = key.partition("/")
                if kind == "parameter":
                    self.tensors[rest].copy_(value)
                elif kind == "state":
                    entry, _, name = rest.partition("/")
                    target = self.tensors[name]
                    self.optimizer.state[target][entry] = value.to(self.device)
                else:
                    setattr(self, key, value)
