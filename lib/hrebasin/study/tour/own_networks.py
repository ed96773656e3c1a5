"""What notebook 11 does with networks that a user brings: read them, name results by their files, save merged ones."""

import re
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr
from torch import nn

from ...bank import Bank
from ...factories import build_network
from ...images.folders import check_name
from ...images.sources import Images, load_images
from ...merging.looks import LOOKS
from ...networks import Normalize
from ...state_dicts import Perceptron, named_like, read_perceptron, read_reference, read_state_dicts
from ...state_names import loaded, renamed
from ...weight_files import PYTORCH, SAFETENSORS, read_weights, write_weights
from ..groups import PERCENT

WRAPPED = "own"  # the user's network in one that normalises images first


@dataclass(frozen=True)
class OwnNetworks:
    """Networks and the files that they come from.

    Attributes:
        bank: the networks, pixels in [0, 1] to logits.
        files: one a network, in order.
        like: what the first file holds: merged networks get its names.
    """

    bank: Bank
    files: tuple[Path, ...]
    like: Perceptron | dict[str, torch.Tensor]

    def names(self, networks: Bank) -> list[str]:
        """What each network is made of, by files: "a", "tree of a and b", "naive average of a to d"."""
        stems, names = [file.stem for file in self.files], []
        columns = (networks.labels[label].tolist() for label in ("method", "stage", "node", "n_merged"))
        for method, stage, node, n_merged in zip(*columns, strict=True):
            first = node * 2**stage if method in ("unmerged", "tree") else 0
            members = stems[first : first + n_merged]
            between = " and " if n_merged == 2 else " to "
            made = between.join([members[0], members[-1]]) if stage else members[0]
            names.append(f"{LOOKS[method][0]} of {made}" if stage else made)
        return names

    def table(self, networks: Bank, scores: xr.Dataset, images: Images):
        """Accuracy and loss, as `hrebasin.evaluate` gives them on images, by files, as a pandas DataFrame."""
        columns = {f"accuracy on {len(images)} images (%)": PERCENT * scores.accuracy.values}
        columns["mean cross-entropy (nat)"] = scores.loss.values
        parts = {name: ("network", values) for name, values in columns.items()}
        return xr.Dataset(parts, coords={"network": self.names(networks)}).to_dataframe()

    def write(self, networks: Bank, folder: Path | str) -> list[Path]:
        """Write every merged network to a file with the tensors' names, and the type, of the first file.

        Args:
            networks: of which the unmerged ones are left out.
            folder: made if it is missing.

        Returns:
            The files: ``tree-of-a-and-b.safetensors`` and so on.
        """
        written = []
        for position, name in enumerate(self.names(networks)):
            if networks.labels["stage"][position]:
                network = networks[position]
                if isinstance(self.like, Perceptron):
                    state = named_like(network.state_dict(), self.like)
                else:
                    state = renamed(getattr(network, WRAPPED, network).state_dict(), self.like)
                written.append(Path(folder) / (re.sub(r"[^\w.]+", "-", name) + self.files[0].suffix))
                write_weights(written[-1], state)
        return written


def read_networks(
    folder: Path | str,
    images: Images,
    *,
    network: str = "",
    layers: Sequence[str] = (),
    reference: Path | str | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> OwnNetworks:
    """Read all networks of a folder, in the order of their names.

    Args:
        folder: of files of weights, see `hrebasin.weight_files.read_weights`; hidden and other files are left out.
        images: that the networks take.
        network: what they are, see `hrebasin.factories.build_network`; by default perceptrons with ReLU.
        layers: of perceptrons, input side first.
        reference: file of the ``inputs`` and ``logits`` of the first perceptron.
        mean, std: what each channel is normalised with before the network, pixels in [0, 1]; by default not at all.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a file in its place, no networks in it, or networks that cannot be read; file and tensor are named.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.is_file():
        raise ValueError(f"{folder} is a file: give the folder that holds it and the other networks")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    shown = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = tuple(path for path in shown if path.suffix.lower() in SAFETENSORS + PYTORCH)
    for file in files:
        check_name(file)
    if not files:
        raise ValueError(f"{folder} holds no network ({', '.join(SAFETENSORS + PYTORCH)})")
    if not network:
        shape = {"image_shape": images.shape, "n_classes": len(images.classes), "mean": mean, "std": std}
        answers = read_reference(reference) if reference else None
        bank = read_state_dicts(files, layers=layers, reference=answers, **shape)
        return OwnNetworks(bank, files, read_perceptron(files[0], layers))
    if layers or reference:
        raise ValueError("layers and reference are for perceptrons without network, which tells both")
    template, states = build_network(network), [read_weights(file) for file in files]
    networks = [loaded(template, state, str(file)) for (state, _), file in zip(states, files, strict=True)]
    if mean or std:
        channels = images.shape[0]
        normalise = Normalize(tuple(mean) or (0.0,) * channels, tuple(std) or (1.0,) * channels)
        networks = [nn.Sequential(OrderedDict({"normalize": normalise, WRAPPED: each})) for each in networks]
    if key := states[0][1]:
        warnings.warn(f"{files[0].name} is a checkpoint: its {key!r} is taken", stacklevel=2)
    bank = Bank.stack(networks, images.pixels[:2], seed=range(len(files)))
    if bank.architecture.n_classes != len(images.classes):
        n_classes = bank.architecture.n_classes
        raise ValueError(f"{network} gives {n_classes} logits, but the images have {len(images.classes)} classes")
    return OwnNetworks(bank, files, states[0][0])


def batch_norm_pixels(bank: Bank, source: Path | str, *, root: Path | str, at_most: int) -> torch.Tensor | None:
    """The first training images of a source, see `hrebasin.load_images`, where a bank has batch norm to measure."""
    if not bank.architecture.batch_norms:
        return None
    return load_images(str(source), "train", root=root, at_most=at_most).pixels
