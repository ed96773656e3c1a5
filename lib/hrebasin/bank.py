"""A bank: N networks of one architecture as stacked tensors, the unit that every stage takes and gives."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

from . import bank_files
from .architectures import RECIPE, NetworkArchitecture
from .checks import check_alike, check_finite, check_module, check_outputs, check_same_architecture, listed
from .networks import Architecture, is_mlp
from .random_streams import generator
from .resources import plain_torch
from .symmetry import Symmetry

# What each network is; the coordinates of every data set's `model` dimension.
LABELS: dict[str, tuple[object, str]] = {
    "method": ("unmerged", "how the network was made"),
    "stage": (0, "log2 of the number of merged networks"),
    "n_merged": (1, "number of networks merged into this one"),
    "group": (0, "tree that the network belongs to, the unit of replication"),
    "node": (0, "place among the networks of the same group, method and stage"),
    "seed": (-1, "seed of the network, or of its first leaf; -1: unknown"),
    "strength": (0.0, "strength of the L1 or L2 penalty; of early-stopped networks their epochs"),
    "sweeps": (0, "largest number of MergeMany sweeps allowed; 0: not MergeMany"),
}


@dataclass(frozen=True, eq=False)
class Bank:
    """N networks of one architecture.

    Attributes:
        architecture: what the networks share.
        tensors: every parameter and saved buffer stacked, ``{"fc1.weight": (model, 512, 3072), ...}``, float32;
            counters are integers.
        labels: ``{"method": (model,), "stage": (model,), ...}``, see `LABELS`.
        history: how the networks were made, with a ``model`` dimension; not saved with the weights.
    """

    architecture: Architecture | NetworkArchitecture
    tensors: dict[str, torch.Tensor]
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    history: xr.Dataset | None = None

    def __post_init__(self):
        shapes = self.architecture.shapes
        if set(self.tensors) != set(shapes):
            raise ValueError(f"a bank of {tuple(shapes)} got tensors {tuple(self.tensors)}")
        if not shapes:
            raise ValueError("the networks have no parameters")
        lengths = {name: len(tensor) for name, tensor in self.tensors.items()}
        if len(set(lengths.values())) != 1 or min(lengths.values()) == 0:
            raise ValueError(f"a bank needs at least one network and tensors of one length, got lengths {lengths}")
        for name, shape in shapes.items():
            if tuple(self.tensors[name].shape[1:]) != shape:
                raise ValueError(f"{name} must be (model, {shape}), got {tuple(self.tensors[name].shape)}")
        object.__setattr__(self, "tensors", {name: self.tensors[name] for name in shapes})
        object.__setattr__(self, "labels", self._complete(self.labels))
        if self.history is not None:
            if self.history.sizes["model"] != len(self):
                raise ValueError(f"a history of {self.history.sizes['model']} networks for a bank of {len(self)}")
            bare = self.history.drop_vars(["model", *LABELS], errors="ignore")
            object.__setattr__(self, "history", bare.assign_coords(self.coords))

    def _complete(self, labels) -> dict[str, np.ndarray]:
        if unknown := set(labels) - set(LABELS):
            raise ValueError(f"unknown labels {sorted(unknown)}; known are {list(LABELS)}")
        complete = {}
        for name, (default, _) in LABELS.items():
            given = labels.get(name, np.arange(len(self)) if name == "node" else default)
            dtype = object if isinstance(default, str) else np.asarray(default).dtype
            values = np.asarray(given, dtype=dtype)
            if values.ndim == 1 and len(values) != len(self):
                raise ValueError(f"label {name!r} has {len(values)} values for {len(self)} networks")
            complete[name] = np.broadcast_to(values.copy(), (len(self),))  # read-only: `coords` is made once
        return complete

    @classmethod
    @plain_torch()
    def stack(
        cls,
        networks: Sequence[nn.Module],
        example: torch.Tensor | None = None,
        *,
        symmetry: Symmetry | None = None,
        prove: bool = True,
        **labels,
    ) -> "Bank":
        """Stack networks of one architecture.

        Args:
            networks: of any kind that `torch.export` can read; they are not changed. Their tensors become float32.
            example: inputs (image, ...) for all, such as ``images[:2]``; the study's own networks need none.
            symmetry: which permutations act on them; by default derived from the first network's graph. That of the
                library's MLPs is known.
            prove: that the symmetry leaves the outputs of the first network as they are.
            labels: as in `LABELS`, a value each or one for all.

        Raises:
            ValueError: no networks, networks of different architectures, tensors that are not real with 32 or 64 bits,
                a symmetry of MLPs, or what `hrebasin.architectures.NetworkArchitecture.of` refuses. Network and tensor
                are named.
        """
        networks = listed(networks)
        if not networks:
            raise ValueError("a bank needs at least one network, got none")
        for position, network in enumerate(networks):
            check_module(position, network)
            check_alike(position, network, networks[0])
        if is_mlp(networks[0]):
            architecture = networks[0].architecture
            if symmetry is not None:
                raise ValueError(f"symmetry is for other networks: that of {architecture.title}, an MLP, is known")
        else:
            if example is None and (recipe := getattr(networks[0], RECIPE, None)):
                example = torch.rand(2, *recipe["image_shape"], generator=generator("example"))
            if example is None:
                title = type(networks[0]).__name__
                raise ValueError(f"{title} needs inputs of its shape: give images= to a merge, or example=images[:2]")
            architecture = NetworkArchitecture.of(networks[0], example, symmetry=symmetry, prove=prove)
        states = [network.state_dict() for network in networks]
        tensors = {name: torch.stack([_plain(state[name]) for state in states]) for name in architecture.shapes}
        bank = cls(architecture, tensors, labels)
        if isinstance(architecture, NetworkArchitecture):
            check_outputs(bank, networks, example)
        return bank

    @classmethod
    def concat(cls, banks: Iterable["Bank"]) -> "Bank":
        """Join banks of one architecture in order; their histories too, if all have one with the same variables."""
        banks = list(banks)
        if not banks:
            raise ValueError("nothing to join: no banks given")
        architecture = banks[0].architecture
        for bank in banks:
            check_same_architecture(bank, banks[0])
        histories = [bank.history for bank in banks]
        alike = all(h is not None and set(h.data_vars) == set(histories[0].data_vars) for h in histories)
        return cls(
            architecture,
            {name: torch.cat([bank.tensors[name] for bank in banks]) for name in architecture.shapes},
            {name: np.concatenate([bank.labels[name] for bank in banks]) for name in LABELS},
            xr.concat([h.drop_vars(["model", *LABELS]) for h in histories], dim="model") if alike else None,
        )

    def relabel(self, **labels) -> "Bank":
        """The same networks with other labels, a value each or one for all."""
        return replace(self, labels=self.labels | labels)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __repr__(self) -> str:
        methods = ", ".join(f"{(self.labels['method'] == m).sum()} {m}" for m in dict.fromkeys(self.labels["method"]))
        return f"Bank({methods}; {self.architecture.title}; {self.device})"

    def __getitem__(self, index: int) -> nn.Module:
        """Network ``index`` as a module like those that were stacked, with weights of its own, on the CPU."""
        return self.architecture.network({name: tensor[index] for name, tensor in self.tensors.items()})

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (model, image, class).

        Args:
            pixels: (image, channel, y, x), the same images for every network, or (model, image, channel, y, x), each
                network its own; in [0, 1] or uint8. Other networks may take other inputs, (image, ...).
        """
        return self.architecture.forward(self.tensors, pixels)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return next(iter(self.tensors.values())).device

    def to(self, device) -> "Bank":
        """The same bank on another device."""
        return replace(self, tensors={name: tensor.to(device) for name, tensor in self.tensors.items()})

    def select(self, indices) -> "Bank":
        """The networks at ``indices`` (integers, a slice or a boolean mask), in that order.

        A slice shares the memory of this bank; nothing in the library writes to it.
        """
        if not isinstance(indices, slice):
            indices = np.asarray(indices) if np.size(indices) else slice(0)  # an empty list is of no integer type
        positions = np.atleast_1d(np.arange(len(self))[indices])
        if len(positions) == 0:
            raise ValueError(f"no network selected out of {len(self)}")
        forward = isinstance(indices, slice) and (indices.step or 1) > 0  # torch has no slices backwards
        index = indices if forward else torch.as_tensor(positions.copy(), device=self.device)
        return replace(
            self,
            tensors={name: tensor[index] for name, tensor in self.tensors.items()},
            labels={name: values[positions] for name, values in self.labels.items()},
            history=None if self.history is None else self.history.isel(model=positions),
        )

    def where(self, **labels) -> "Bank":
        """The networks whose labels have the given values: ``bank.where(method="tree", stage=2)``."""
        mask = np.ones(len(self), dtype=bool)
        for name, value in labels.items():
            if name not in LABELS:
                raise ValueError(f"unknown label {name!r}; known are {list(LABELS)}")
            mask &= np.isin(self.labels[name].astype(type(LABELS[name][0])), value)
        if not mask.any():
            raise ValueError(f"no network with {labels} in {self}")
        return self.select(mask)

    def chunks(self, size: int):
        """The bank in pieces of at most ``size`` networks."""
        for start in range(0, len(self), size):
            yield self.select(slice(start, start + size))

    @cached_property
    def coords(self) -> dict[str, xr.Variable]:
        """The labels as coordinates of a ``model`` dimension, with a unique name for each network."""
        coords = {
            name: xr.Variable("model", values, {"long_name": LABELS[name][1], "units": "1"})
            for name, values in self.labels.items()
        }
        columns = zip(*(self.labels[name] for name in LABELS), strict=True)
        names = [
            f"{method}/group-{group:03d}/stage-{stage}/node-{node:02d}"
            + (f"/sweeps-{sweeps}" if sweeps else "")
            + (f"/strength-{strength:g}" if strength else "")
            for method, stage, _, group, node, _, strength, sweeps in columns
        ]
        about = {"long_name": "network", "units": "1"}
        return coords | {"model": xr.IndexVariable("model", np.array(names, dtype=object), about)}

    def array(self, values, dims=("model",), *, name=None, long_name: str, units: str, **coords) -> xr.DataArray:
        """``values`` as a DataArray over this bank's networks; ``coords`` of its other dimensions, by name."""
        values = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        attrs = {"long_name": long_name, "units": units}
        others = {
            dim: axis if isinstance(axis, xr.Variable) else xr.Variable(dim, axis, {"long_name": dim, "units": "1"})
            for dim, axis in coords.items()
        }
        return xr.DataArray(values, dims=dims, coords=self.coords | others, name=name, attrs=attrs)

    def save(self, path: Path | str, *, origin: Mapping | None = None) -> None:
        """Write weights and labels as safetensors, atomically; the header holds architecture, labels and origin.

        Args:
            path: of the file.
            origin: plain values that tell where the networks come from, such as `hrebasin.study.records.provenance`.

        Raises:
            ValueError: weights that `load` would refuse, because they are not float32 or not finite.
        """
        check_finite(self, str(path))
        labels = {name: values.tolist() for name, values in self.labels.items()}
        bank_files.write(Path(path), self.architecture, self.tensors, labels, origin or {})

    @classmethod
    def load(cls, path: Path | str, *, network: nn.Module | None = None, device="cpu") -> "Bank":
        """Read a bank that `save` wrote.

        Args:
            path: of the file.
            network: a module like those in the bank, where they are none of the library's own.
            device: where the tensors go.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a bank, damaged, of another network than the given one, or with weights that `save` refuses.
        """
        architecture, tensors, labels = bank_files.read(Path(path), network, str(device))
        try:
            bank = cls(architecture, tensors, labels)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no valid bank: {error}") from error
        check_finite(bank, str(path))
        return bank


def average(tensor: torch.Tensor, size: int | None = None) -> torch.Tensor:
    """Means over ``size`` networks after one another (by default all), (model / size, ...); of counters the first."""
    blocks = tensor.unflatten(0, (-1, size or len(tensor)))
    return blocks.mean(1) if tensor.is_floating_point() else blocks[:, 0].clone()


def blend(a: Bank, b: Bank, weight: float) -> dict[str, torch.Tensor]:
    """The tensors of (1 - weight) A + weight B, pair by pair; counters are those of A."""
    pairs = {name: (tensor, b.tensors[name]) for name, tensor in a.tensors.items()}
    return {name: torch.lerp(*pair, weight) if pair[0].is_floating_point() else pair[0] for name, pair in pairs.items()}


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.is_floating_point() else tensor
