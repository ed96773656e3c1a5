"""MergeMany of Git Re-Basin (Ainsworth et al. 2023, algorithm 3), several sets of networks side by side."""

import time
from collections.abc import Sequence

import numpy as np
import torch

from .bank import Bank, check_same_architecture
from .history import merged_labels, pairwise_distance, squared_norms, with_history
from .matching import Descent, permute
from .networks import permutation_spec
from .progress import track
from .seeding import Seed, generator

CONVERGENCE = 100  # sweeps; stands for "to convergence", reached in 14 to 64 on CIFAR-10


def merge_many(
    bank: Bank, *, max_sweeps: int = CONVERGENCE, limits: Sequence[int] | None = None, seed: Seed = 0
) -> Bank:
    """MergeMany: re-align each network to the mean of the others until nothing changes; the mean of all.

    Of two networks it is the pair merge: the second moves, with the layer order that `merge_pairs` takes.

    Args:
        bank: the networks to merge; not changed.
        max_sweeps: most sweeps over the networks.
        limits: several limits at once, in place of ``max_sweeps``; the result then holds one network for each.
        seed: of the orders of networks and layers.

    Returns:
        One network, or one for each limit, with the variables of `hrebasin.history.HISTORY`.

    Raises:
        ValueError: fewer than two networks, or limits that are not positive and increasing.
    """
    return merge_many_sets([bank], limits=limits or (max_sweeps,), seeds=[seed])[0]


def merge_many_sets(
    banks: Sequence[Bank], *, limits: Sequence[int] = (CONVERGENCE,), seeds: Sequence[Seed]
) -> list[Bank]:
    """`merge_many` on several sets of networks side by side; results do not depend on the company."""
    if not banks or len(seeds) != len(banks):
        raise ValueError(f"{len(seeds)} seeds given for {len(banks)} sets of networks")
    limits = list(limits)
    if sorted(set(limits)) != limits or limits[0] < 1:
        raise ValueError(f"sweep limits must be positive and increasing, got {limits}")
    for bank in banks:
        check_same_architecture(bank, banks[0])
        if len(bank) < 2:
            raise ValueError(f"MergeMany needs at least 2 networks, got {len(bank)}")
    runs = [_MergeMany(bank, limits, seed) for bank, seed in zip(banks, seeds, strict=True)]
    with track(label="MergeMany", total=limits[-1], unit="sweep") as progress:
        while due := [run for run in runs if run.model is not None]:
            start = time.perf_counter()
            _realign(due)
            seconds = (time.perf_counter() - start) / len(due)
            for run in due:
                run.advance(seconds)
            progress.update(max(run.sweeps for run in runs) - progress.n)
            progress.set_postfix(open=sum(run.model is not None for run in runs), refresh=False)
    return [run.result() for run in runs]


def _realign(runs: list["_MergeMany"]) -> None:
    """Re-align each run's next network to the mean of its others, all matched together."""
    spec = permutation_spec(runs[0].bank.architecture)
    parts = [run.others() for run in runs]
    descent = Descent(
        {name: torch.cat([means[name] for means, _ in parts]) for name in parts[0][0]},
        {name: torch.stack([run.bank.tensors[name][run.model] for run in runs]) for name in parts[0][0]},
        spec,
        permutations={n: torch.stack([run.permutations[n][run.model] for run in runs]) for n in runs[0].permutations},
        prices={name: np.stack([run.prices[name][run.model] for run in runs]) for name in runs[0].prices},
        constants={name: torch.stack([constants[name] for _, constants in parts]) for name in runs[0].permutations},
    )
    descent.run([run.stream() for run in runs], CONVERGENCE)
    for position, run in enumerate(runs):
        run.accept(
            {name: perm[position] for name, perm in descent.permutations.items()},
            {name: prices[position] for name, prices in descent.prices.items()},
        )


class _MergeMany:
    """One MergeMany run: networks as given, the permutations that align them, and the sum of the aligned ones.

    Only parameters with two permuted axes are averaged over the others at every step. For a parameter b with one, the
    term (S - P b) b^T = S b^T - P (b b^T) comes from the sum S and a product b b^T that never changes, so the widest
    layer is neither copied nor permuted.
    """

    def __init__(self, bank: Bank, limits: list[int], seed: Seed):
        self.bank, self.limits = bank, limits
        labels = merged_labels(bank)
        place = {name: np.ravel(labels[name])[0] for name in ("group", "stage", "node")}
        self.name = f"{seed}/group-{place['group']}/stage-{place['stage']}/node-{place['node']}"
        self.spec = permutation_spec(bank.architecture)
        widths = {f"P{number}": width for number, width in enumerate(bank.architecture.widths, start=1)}
        self.permutations = {
            name: torch.arange(width, device=bank.device).repeat(len(bank), 1) for name, width in widths.items()
        }
        self.prices = {name: np.zeros((len(bank), width)) for name, width in widths.items()}
        axes = {key: [p for p in names if p is not None] for key, names in self.spec.items()}
        self.inner = [key for key, names in axes.items() if len(names) == 2]
        self.outer = {p: [key for key, names in axes.items() if names == [p]] for p in widths}
        self.squares = {p: sum(self._rows(k) @ self._rows(k).mT for k in keys) for p, keys in self.outer.items()}
        self.total = self._sum()
        self.orders = generator(f"model-order/{self.name}")
        self.due = np.ones(len(bank), dtype=bool)  # the others have moved since it was last aligned
        self.sweeps, self.seconds, self.changed, self.queue = 0, 0.0, False, self._order()
        self.kept: dict[int, tuple] = {}
        self.model: int | None = None
        self._next()

    def _order(self) -> list[int]:
        order = torch.randperm(len(self.bank), generator=self.orders).tolist()
        return order if len(order) > 2 else [1, 0]

    def stream(self) -> str:
        """Name of the layer order of the next alignment."""
        return f"{self.name}/sweep-{self.sweeps}/model-{self.model}" if len(self.bank) > 2 else self.name

    def _rows(self, key: str, tensor: torch.Tensor | None = None) -> torch.Tensor:
        """A parameter with one permuted axis as matrices (model, permuted unit, other)."""
        tensor = self.bank.tensors[key] if tensor is None else tensor
        axis = next(position for position, name in enumerate(self.spec[key], start=1) if name is not None)
        return tensor.movedim(axis, 1).flatten(2) if tensor.ndim > 2 else tensor[..., None]

    def _sum(self) -> dict[str, torch.Tensor]:
        aligned = permute(self.bank.tensors, self.spec, self.permutations)
        return {name: tensor.sum(0, keepdim=True) for name, tensor in aligned.items()}

    def _aligned(self, keys) -> dict[str, torch.Tensor]:
        """Parameters of the current network in its current order."""
        tensors = {key: self.bank.tensors[key][self.model, None] for key in keys}
        return permute(tensors, self.spec, {name: perm[self.model, None] for name, perm in self.permutations.items()})

    def others(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The mean of the others for `Descent`: parameters with two permuted axes, and the constant products."""
        n_others = len(self.bank) - 1
        means = {key: (self.total[key] - own) / n_others for key, own in self._aligned(self.inner).items()}
        constants = {}
        for name, keys in self.outer.items():
            own = self.squares[name][self.model][self.permutations[name][self.model]]
            whole = sum(self._rows(k, self.total[k])[0] @ self._rows(k)[self.model].mT for k in keys)
            constants[name] = (whole - own) / n_others
        return means, constants

    def accept(self, permutations: dict[str, torch.Tensor], prices: dict[str, np.ndarray]) -> None:
        self.due[self.model] = False
        for name in self.prices:
            self.prices[name][self.model] = prices[name]
        if all(torch.equal(permutations[name], perm[self.model]) for name, perm in self.permutations.items()):
            return
        before = self._aligned(self.spec)
        for name in self.permutations:
            self.permutations[name][self.model] = permutations[name]
        for name, after in self._aligned(self.spec).items():
            self.total[name] += after - before[name]
        self.changed = True
        self.due[np.arange(len(self.bank)) != self.model] = True

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self._next()

    def _next(self) -> None:
        """Go to the next network that may gain, over the ends of sweeps; None when the run has ended."""
        while True:
            while self.queue:
                self.model = self.queue.pop(0)
                if self.due[self.model]:
                    return
            converged = self._end_sweep()
            if converged or self.sweeps == self.limits[-1]:
                self.model = None
                return
            self.queue, self.changed = self._order(), False

    def _end_sweep(self) -> bool:
        self.sweeps += 1
        converged = not self.changed
        self.total = self._sum()  # float32 sums drift when they are updated again and again
        if self.sweeps in self.limits or converged:
            merged = Bank(
                self.bank.architecture,
                {n: t / len(self.bank) for n, t in self.total.items()},
                merged_labels(self.bank),
            )
            distance = pairwise_distance(squared_norms(self.bank)[None], merged)
            state = (merged, distance, self.sweeps, converged, self.seconds)
            for limit in self.limits:
                if limit not in self.kept and (limit == self.sweeps or converged):
                    self.kept[limit] = state
        return converged

    def result(self) -> Bank:
        rows = [self.kept[limit] for limit in self.limits]
        merged = Bank.concat([row[0] for row in rows])
        merged = merged.relabel(method="merge-many", sweeps=self.limits)
        columns = [np.array([row[i] for row in rows]) for i in (2, 3, 4)]
        return with_history(merged, torch.cat([row[1] for row in rows]), *columns)
