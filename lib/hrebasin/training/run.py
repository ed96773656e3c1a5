"""One training: some networks side by side in a bank, with everything that a checkpoint must hold."""

import hashlib
import json
import math
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ..architectures import NetworkArchitecture
from ..bank import Bank
from ..digests import module_digest
from ..files import write_atomically
from ..networks import Architecture
from ..random_streams import generator
from ..resources import plain_torch

CHECKPOINT_SECONDS = 10.0  # between two states of unfinished networks; with moments, one is three times their weights
CHECKPOINT_SHARE = 0.05  # of the time, at most, for states of large banks
DISK = 0.5e9  # bytes/s that a slow disk takes


class DivergedError(RuntimeError):
    """A network whose training failed; the message names its seed."""


@plain_torch()
def initial_bank(architecture: Architecture | NetworkArchitecture, seeds: Sequence[int]) -> Bank:
    """Untrained networks: weights and biases uniform in +-1/sqrt(fan in), PyTorch's default; norms at scale 1.

    Network ``s`` draws from the stream ``initial-weights/s``.

    Raises:
        ValueError: a module with parameters of its own, whose start only its author knows.
    """
    drawn = [architecture.initial(generator(f"initial-weights/{seed}")) for seed in seeds]
    return Bank(
        architecture, {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}, {"seed": list(seeds)}
    )


class Stopped(Exception):  # noqa: N818
    """Training that ends because another network's failed or was interrupted."""


class TrainingRun:
    """Some networks trained together, with everything that a checkpoint must hold."""

    def __init__(self, batches, seeds, recipes, snapshots, device, checkpoints):
        self.batches, self.seeds, self.recipes = batches, seeds, recipes
        self.recipe = recipe = recipes[0]
        self.last = recipe.epochs
        self.architecture, self.images = batches.architecture, batches.images
        self.device = torch.device(device)
        bank = initial_bank(self.architecture, seeds)
        self.tensors = {name: tensor.to(device) for name, tensor in bank.tensors.items()}
        self.parameters = [self.tensors[name].requires_grad_() for name in self.architecture.parameters]
        # Products in bfloat16 take copies of an MLP's weights, which are rounded anew at every step; other networks
        # round where PyTorch's autocast does.
        self.rounded, self.mixed = None, recipe.precision == "bfloat16"
        if self.mixed and isinstance(self.architecture, Architecture):
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
        self.loss = torch.zeros(len(seeds), self.last, dtype=torch.float64)
        self.accuracy = torch.zeros(len(seeds), self.last, dtype=torch.float64)
        # epochs -> the step after which a copy is kept; step -> that copy
        self.due = {epochs: max(1, round(epochs * len(batches))) for epochs in snapshots}
        self.copies: dict[int, dict[str, torch.Tensor]] = {}
        self.path = None
        if checkpoints is not None:
            how = [asdict(r) for r in recipes]
            code = module_digest("training.train")  # another version's training goes another way
            self.identity = json.dumps(
                [self.architecture.as_dict(), how, list(snapshots), seeds, self.images.digest, str(device), code],
            )
            self.path = Path(checkpoints) / f"{hashlib.sha256(self.identity.encode()).hexdigest()[:24]}.safetensors"
            if self.path.is_file():
                self._resume()

    def finish(self, progress, stop: threading.Event, side_by_side: int) -> Bank:
        """Train to the end; the bank with its history, copies behind. Raises `Stopped` when ``stop`` is set."""
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
        self._check_above_chance()
        states = [(self.last, self.tensors), *((epochs, self.copies[step]) for epochs, step in self.due.items())]
        return Bank.concat([self._bank(epochs, tensors) for epochs, tensors in states])

    def _bank(self, epochs: float, tensors: dict[str, torch.Tensor]) -> Bank:
        """The networks as they were after so many epochs, on the CPU, with their history until then."""
        axis = np.arange(1, self.last + 1)
        labels = {"seed": self.seeds, "method": "stopped", "strength": epochs}
        if epochs == self.last:
            labels["method"] = ["l1" if r.l1 else "l2" if r.l2 else "unmerged" for r in self.recipes]
            labels["strength"] = [r.l1 or r.l2 for r in self.recipes]
        seconds = np.full(len(self.seeds), self.seconds / len(self.seeds) * epochs / self.last)
        dims, past = ("model", "epoch"), axis <= epochs
        loss, accuracy = (np.where(past, values, np.nan) for values in (self.loss, self.accuracy))
        history = xr.Dataset(
            {
                "train_loss": (dims, loss, {"long_name": "running training cross-entropy", "units": "nat"}),
                "train_accuracy": (dims, accuracy, {"long_name": "running training accuracy", "units": "1"}),
                "seconds": ("model", seconds, {"long_name": "training time", "units": "s"}),
            },
            coords={"epoch": xr.Variable("epoch", axis, {"long_name": "epoch", "units": "1"})},
        )
        return Bank(self.architecture, {n: t.detach() for n, t in tensors.items()}, labels, history).to("cpu")

    def _train_epoch(self):
        recipe, n_steps = self.recipe, len(self.batches)
        loss_sum, n_right = torch.zeros(2, len(self.seeds), dtype=torch.float64, device=self.device)
        for step, (inputs, labels) in enumerate(self.batches.epoch(self.seeds, self.epoch)):
            share = (self.epoch * n_steps + step) / (recipe.epochs * n_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
            losses, right = self._step(inputs, labels)
            if (done := self.epoch * n_steps + step + 1) in self.due.values():
                self._keep(done)
            loss_sum += losses * labels.shape[1]
            n_right += right
        self.loss[:, self.epoch] = (loss_sum / len(self.images)).cpu()
        self.accuracy[:, self.epoch] = (n_right / len(self.images)).cpu()

    def _step(self, inputs, labels):
        weights = self.tensors if self.rounded is None else self._round()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed and self.rounded is None):
            outputs = self.architecture.logits(weights, inputs, training=True).float()
        losses = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
        losses = losses.view_as(labels)
        objective = losses.mean(1).sum()  # networks share nothing, so the sum separates into their gradients
        for power, strengths in self.penalties.items():
            size = sum(tensor.abs().pow(power).flatten(1).sum(1) for tensor in self.parameters)
            objective = objective + (strengths * size).sum()
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()
        for parameter, copy in zip(self.parameters, weights.values(), strict=True) if self.rounded is not None else ():
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
        for seed, loss in zip(self.seeds, self.loss[:, self.epoch - 1], strict=True):
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the network of seed {seed} diverged: training loss {loss} in epoch {self.epoch} ({self.recipe})"
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

    def _keep(self, step: int):
        """Keep a copy of the networks, beside the checkpoint too, which only tells the present state."""
        self.copies[step] = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()}
        if self.path is not None:
            write_atomically(self._copy_path(step), save(self.copies[step]))

    def _copy_path(self, step: int) -> Path:
        return self.path.with_name(f"{self.path.stem}-{step}.safetensors")

    def _checkpoint(self, *, moments: bool):
        tensors = {f"parameter/{name}": tensor.detach() for name, tensor in self.tensors.items()}
        for name in self.architecture.parameters if moments else ():
            for key, value in self.optimizer.state[self.tensors[name]].items():
                if isinstance(value, torch.Tensor):
                    tensors[f"state/{key}/{name}"] = value
        tensors |= {"loss": self.loss, "accuracy": self.accuracy}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"identity": self.identity, "epoch": str(self.epoch), "seconds": str(self.seconds)}
        write_atomically(self.path, save(tensors, metadata))
        self.saved = time.perf_counter()

    def _resume(self):
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            epoch = int(metadata["epoch"])
            past = [step for step in self.due.values() if step <= epoch * len(self.batches)]
            self.copies = {step: load_file(self._copy_path(step)) for step in past}
            seconds = float(metadata["seconds"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            warnings.warn(f"{self.path} or a copy beside it is damaged and not used: {error}", stacklevel=2)
            return
        self.epoch, self.seconds = epoch, seconds
        with torch.no_grad():
            for key, value in state.items():
                kind, _, rest = key.partition("/")
                if kind == "parameter":
                    self.tensors[rest].copy_(value)
                elif kind == "state":
                    entry, _, name = rest.partition("/")
                    self.optimizer.state[self.tensors[name]][entry] = value.to(self.device)
                else:
                    setattr(self, key, value)
