"""Training from named seeds: network 17 is the same network in whichever bank, shard or order it is trained."""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import save

from .bank import Bank, logits, normalize
from .files import write_atomically
from .images import Images
from .networks import Architecture
from .progress import track
from .recipe import Recipe
from .seeding import generator

CHECKPOINT_SECONDS = 10.0  # between two states of unfinished networks; with moments, one is three times their weights


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
    recipe: Recipe | None = None,
    *,
    device: str = "cpu",
    bank_size: int | None = None,
    checkpoints: Path | None = None,
    label: str = "training",
) -> Bank:
    """Train one network for each seed.

    Args:
        architecture: of all networks; must fit the images.
        images: training images.
        seeds: network ``s`` draws its weights, batch order and augmentation from streams named after ``s``.
        recipe: see `Recipe`.
        device: where to train.
        bank_size: networks trained at once; by default 1 on a CPU (fastest there, and bit for bit the same in
            any bank) and 64 elsewhere.
        checkpoints: folder for states, written after an epoch when `CHECKPOINT_SECONDS` have passed and at the end;
            training continues from what it finds there.
        label: name of the progress report.

    Returns:
        A bank whose ``history`` holds ``train_loss``, ``train_accuracy`` (model, epoch), running means over an
        epoch in training mode, and ``seconds`` (model,).

    Raises:
        ValueError: images that do not fit the architecture, repeated seeds.
        DivergedError: a loss that is not finite, or an accuracy at chance after the last epoch; names the seed.
    """
    recipe, seeds = recipe or Recipe(), [int(seed) for seed in seeds]
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be distinct and at least one, got {seeds}")
    if images.shape != architecture.image_shape or len(images.classes) != architecture.n_classes:
        raise ValueError(
            f"images {images.shape} of {len(images.classes)} classes do not fit the architecture's "
            f"{architecture.image_shape} and {architecture.n_classes}"
        )
    bank_size = bank_size or (1 if torch.device(device).type == "cpu" else 64)
    images = images.to(device)
    trained = []
    with track(label=label, total=len(seeds) * recipe.epochs, unit="epoch") as progress:
        for start in range(0, len(seeds), bank_size):
            run = _Run(architecture, images, seeds[start : start + bank_size], recipe, device, checkpoints)
            trained.append(run.finish(progress))
    method = "l1" if recipe.l1 else "l2" if recipe.l2 else "unmerged"
    bank = Bank.concat(trained)
    return bank.relabel(method=method, strength=recipe.l1 or recipe.l2, node=np.arange(len(bank)))


class _Run:
    """Some networks trained together, with everything that a checkpoint must hold."""

    def __init__(self, architecture, images, seeds, recipe, device, checkpoints):
        self.architecture, self.images, self.seeds, self.recipe = architecture, images, seeds, recipe
        self.device = torch.device(device)
        bank = initial_bank(architecture, seeds)
        self.tensors = {name: tensor.to(device).requires_grad_() for name, tensor in bank.tensors.items()}
        parameters = list(self.tensors.values())
        options = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
        if recipe.optimizer == "adam":
            self.optimizer = torch.optim.Adam(parameters, **options)
        else:
            self.optimizer = torch.optim.SGD(parameters, momentum=recipe.momentum, **options)
        self.epoch, self.seconds, self.saved = 0, 0.0, time.perf_counter()
        self.loss = torch.zeros(len(seeds), recipe.epochs, dtype=torch.float64)
        self.accuracy = torch.zeros(len(seeds), recipe.epochs, dtype=torch.float64)
        self.path = None
        if checkpoints is not None:
            self.identity = json.dumps([architecture.as_dict(), asdict(recipe), seeds, images.digest, str(device)])
            self.path = Path(checkpoints) / f"{hashlib.sha256(self.identity.encode()).hexdigest()[:24]}.safetensors"
            if self.path.is_file():
                self._resume()

    def finish(self, progress) -> Bank:
        progress.update(self.epoch * len(self.seeds))
        while self.epoch < self.recipe.epochs:
            start = time.perf_counter()
            self._train_epoch()
            self.epoch += 1
            self.seconds += time.perf_counter() - start
            self._check_finite()
            finished = self.epoch == self.recipe.epochs
            if self.path is not None and (finished or time.perf_counter() - self.saved >= CHECKPOINT_SECONDS):
                self._checkpoint(moments=not finished)
            progress.update(len(self.seeds))
        self._check_above_chance()
        tensors = {name: tensor.detach() for name, tensor in self.tensors.items()}
        epochs = xr.Variable("epoch", np.arange(1, self.recipe.epochs + 1), {"long_name": "epoch", "units": "1"})
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
        recipe, images, n = self.recipe, self.images, len(self.images)
        orders = torch.stack(
            [torch.randperm(n, generator=generator(f"batch-order/{seed}/{self.epoch}")) for seed in self.seeds]
        ).to(self.device)
        augment = [generator(f"augmentation/{seed}/{self.epoch}") for seed in self.seeds]
        n_steps = math.ceil(n / recipe.batch_size)
        loss_sum, n_right = torch.zeros(2, len(self.seeds), dtype=torch.float64, device=self.device)
        for step, batch in enumerate(orders.split(recipe.batch_size, dim=1)):
            done = (self.epoch * n_steps + step) / (recipe.epochs * n_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            pixels, labels = images.pixels[batch], images.labels[batch]
            if recipe.crop_padding or recipe.flip:
                pixels = torch.stack([_augment(p, recipe, g) for p, g in zip(pixels, augment, strict=True)])
            losses, right = self._step(pixels, labels)
            loss_sum += losses * batch.shape[1]
            n_right += right
        self.loss[:, self.epoch] = (loss_sum / n).cpu()
        self.accuracy[:, self.epoch] = (n_right / n).cpu()

    def _step(self, pixels, labels):
        recipe, tensors = self.recipe, self.tensors
        mixed = recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            outputs = logits(self.architecture, tensors, normalize(self.architecture, pixels))
        outputs = outputs.float()
        losses = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none").view_as(
            labels
        )
        objective = losses.mean(1).sum()  # networks share nothing, so the sum separates into their gradients
        if recipe.l1:
            objective = objective + recipe.l1 * sum(tensor.abs().sum() for tensor in tensors.values())
        if recipe.l2:
            objective = objective + recipe.l2 * sum(tensor.square().sum() for tensor in tensors.values())
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()
        self.optimizer.step()
        right = (outputs.detach().argmax(-1) == labels).sum(1)
        return losses.detach().mean(1).double(), right

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
        with safe_open(self.path, framework="pt") as file, torch.no_grad():
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


def _augment(pixels: torch.Tensor, recipe: Recipe, stream: torch.Generator) -> torch.Tensor:
    """Random crop and flip of uint8 pixels (image, channel, y, x), drawn for each image."""
    n, _, height, width = pixels.shape
    pad = recipe.crop_padding
    top, left = torch.randint(0, 2 * pad + 1, (2, n), generator=stream).to(pixels.device)
    mirrored = (torch.rand(n, generator=stream) < 0.5).to(pixels.device) & recipe.flip
    rows = top[:, None] + torch.arange(height, device=pixels.device)
    columns = torch.arange(width, device=pixels.device).expand(n, -1)
    columns = left[:, None] + torch.where(mirrored[:, None], width - 1 - columns, columns)
    padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad))
    image = torch.arange(n, device=pixels.device)
    # advanced indexing puts the channel last: (image, y, x, channel)
    return padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
