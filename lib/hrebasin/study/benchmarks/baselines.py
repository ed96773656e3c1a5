"""What a user could run instead: public algorithms as written, one network at a time. For benchmarks and as oracles."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from foolbox import PyTorchModel
from foolbox.attacks import LinfDeepFoolAttack, LinfFastGradientAttack
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ...bank import Bank
from ...images.sources import Images
from ...matching.weights import Alignment
from ...networks import Architecture
from ...random_streams import Seed, generator
from ...training.recipe import Recipe


class _Pictures(Dataset):
    """Images as ``torchvision.datasets.CIFAR10`` hands them out: a PIL image at a time, through a transform."""

    def __init__(self, images: Images, transform):
        self.pixels = images.pixels.permute(0, 2, 3, 1).numpy()
        self.labels, self.transform = images.labels.tolist(), transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def plain_network(architecture: Architecture) -> nn.Sequential:
    """The layers of an architecture for normalised input, without the library's classes."""
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in zip(architecture.units[:-1], architecture.units[1:], strict=True):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train(architecture: Architecture, images: Images, recipe: Recipe, *, seed: int = 0, workers: int = 0) -> Bank:
    """Train one network with a ``DataLoader`` and torchvision transforms, as public Re-Basin code does.

    Args:
        architecture: of the network.
        images: training images with three channels, uint8.
        recipe: only Adam with cosine decay, batch size, learning rate and epochs are followed.
        seed: of weights and order.
        workers: processes of the ``DataLoader``.
    """
    from torchvision import transforms

    torch.manual_seed(seed)
    network = plain_network(architecture)
    steps = [transforms.ToTensor(), transforms.Normalize(architecture.mean, architecture.std)]
    loader = DataLoader(
        _Pictures(images, transforms.Compose(steps)), recipe.batch_size, shuffle=True, num_workers=workers
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * len(loader))
    for _ in range(recipe.epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
            schedule.step()
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    tensors = {}
    for name, layer in zip(architecture.layers, linear, strict=True):
        tensors |= {f"{name}.weight": layer.weight.detach()[None], f"{name}.bias": layer.bias.detach()[None]}
    return Bank(architecture, tensors, {"seed": [seed]})


def match_weights(reference: Bank, moving: Bank, *, seed: Seed = 0, max_sweeps: int = 100) -> dict[str, torch.Tensor]:
    """Weight matching of one pair as in public code: every layer solved in every sweep, sums in float32.

    Git Re-Basin, algorithm 1, as its PyTorch ports run it: SciPy's assignment, progress when a float32 sum rises by
    more than 1e-12.

    Returns:
        For each permutation the unit of the moving network placed at i, (unit,) int64.
    """
    spec, symmetry = _specification(moving), moving.architecture.symmetry
    a, b = ({name: bank.tensors[name][0] for name in spec} for bank in (reference, moving))
    perms = {name: torch.arange(width) for name, width in symmetry.permutations.items()}
    names, stream = list(perms), generator(f"layer-order/{seed}")
    for _ in range(max_sweeps):
        progress = False
        for position in torch.randperm(len(names), generator=stream).tolist():
            name = names[position]
            n = len(perms[name])
            gains = torch.zeros(n, n)
            for key, axes in spec.items():
                if name not in axes:
                    continue
                permuted = _permuted(b[key], axes, perms, leave_out=name)
                axis = axes.index(name)
                gains += a[key].movedim(axis, 0).reshape(n, -1) @ permuted.movedim(axis, 0).reshape(n, -1).T
            columns = torch.as_tensor(linear_sum_assignment(gains.numpy(), maximize=True)[1])
            rows = torch.arange(n)
            progress |= bool(gains[rows, columns].sum() > gains[rows, perms[name]].sum() + 1e-12)
            perms[name] = columns
        if not progress:
            break
    return perms


def excess(reference: Bank, moving: Bank, ours: Alignment, perms: list[dict[str, torch.Tensor]]) -> float:
    """By how much of the objective, in percent, the permutations of pairs exceed ours; mean over pairs."""
    stacked = {name: torch.stack([pair[name] for pair in perms]) for name in perms[0]}
    return excess_of(reference, replace(ours, permutations=stacked).apply(moving), ours)


def excess_of(reference: Bank, aligned: Bank, ours: Alignment) -> float:
    """The same of networks that have been permuted."""
    total = 0.0
    for name in reference.architecture.parameters:
        total = total + (reference.tensors[name].double() * aligned.tensors[name].double()).flatten(1).sum(1)
    return 100 * float((total / ours.objective - 1).mean())


def rebasin(reference: Bank, moving: Bank) -> Bank:
    """Weight matching of any networks, pair by pair, with the package ``rebasin``; the moving ones, permuted.

    Args:
        reference, moving: banks of one architecture and length, of networks that the package can trace.
    """
    from rebasin import PermutationCoordinateDescent

    example, states = torch.zeros(1, *moving.architecture.image_shape), []
    for target, network in zip(reference, moving, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of its layer orders
            PermutationCoordinateDescent(target, network, example).rebasin()
        states.append(network.state_dict())
    return replace(moving, tensors={name: torch.stack([state[name] for state in states]) for name in moving.tensors})


def _specification(bank: Bank) -> dict[str, tuple[str | None, ...]]:
    """Which permutation acts on which axis, as public code has it written by hand: one a whole axis."""
    axes = bank.architecture.symmetry.axes
    return {name: tuple(axis[0][0].name for axis in axes[name]) for name in bank.architecture.parameters}


def _permuted(tensor, axes, perms, *, leave_out=None):
    for axis, name in enumerate(axes):
        if name not in (None, leave_out):
            tensor = tensor.index_select(axis, perms[name])
    return tensor


def merge_tree(bank: Bank, *, seed: Seed = 0) -> Bank:
    """The network at the root of the paper's tree: pairs merged one by one with `match_weights`.

    Layer orders are those of `hrebasin.merge_tree` with the same seed, so the two differ by rounding alone.
    """
    group = bank.labels["group"][0]
    spec, level, stage = _specification(bank), [bank.select([i]) for i in range(len(bank))], 0
    while len(level) > 1:
        stage, merged = stage + 1, []
        for node, (first, second) in enumerate(zip(level[::2], level[1::2], strict=True)):
            perms = match_weights(first, second, seed=f"{seed}/group-{group}/stage-{stage}/node-{node}")
            tensors = {
                name: (tensor + _permuted(second.tensors[name][0], spec[name], perms)) / 2
                for name, tensor in first.tensors.items()
            }
            merged.append(Bank(bank.architecture, tensors))
        level = merged
    return level[0]


def merge_many(bank: Bank) -> Bank:
    """MergeMany to convergence with the package ``rebasin`` (optional dependency group ``bench``)."""
    from rebasin import MergeMany

    *networks, working = (plain_network(bank.architecture) for _ in range(len(bank) + 1))
    for index, network in enumerate(networks):
        state = [bank.tensors[name][index] for name in bank.architecture.shapes]
        network.load_state_dict(dict(zip(network.state_dict(), state, strict=True)))
    merged = MergeMany(networks, working, torch.zeros(1, *bank.architecture.image_shape)).run()
    tensors = zip(bank.architecture.shapes, merged.state_dict().values(), strict=True)
    return Bank(bank.architecture, {name: tensor[None] for name, tensor in tensors})


def attack(
    bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, *, kind: str, epsilons: Sequence[float]
) -> np.ndarray:
    """Foolbox on one network after the other: whether each image is broken, (model, epsilon, image) bool.

    Args:
        bank: the networks.
        pixels: (image, channel, y, x) in [0, 1].
        labels: (image,).
        kind: ``"fgsm"`` or ``"deepfool-linf"``.
        epsilons: L-infinity, pixel units.
    """
    attacks = {"fgsm": LinfFastGradientAttack(random_start=False), "deepfool-linf": LinfDeepFoolAttack()}
    models = (PyTorchModel(network.eval(), bounds=(0, 1), device=bank.device) for network in bank)
    return np.stack([attacks[kind](model, pixels, labels, epsilons=list(epsilons))[2].numpy() for model in models])


def lipschitz(bank: Bank) -> np.ndarray:
    """Product of spectral norms and ECLipsE-Fast of one network after the other in NumPy, (model, bound).

    Inputs in normalised units; norms from singular values, as in the published algorithms.
    """
    bounds = []
    for index in range(len(bank)):
        weights = [bank.tensors[f"{name}.weight"][index].double().numpy() for name in bank.architecture.layers]
        inverse = np.eye(weights[0].shape[1])
        for weight in weights[:-1]:
            m = weight @ inverse @ weight.T
            multiplier = 2 / np.linalg.norm(m, 2)
            inverse = np.linalg.inv(multiplier * np.eye(len(m)) - multiplier**2 / 4 * m)
        final = weights[-1] @ inverse @ weights[-1].T
        product = np.prod([np.linalg.norm(weight, 2) for weight in weights])
        bounds.append((product, np.sqrt(np.linalg.norm(final, 2))))
    return np.array(bounds)
