"""MergeMany of Git Re-Basin (Ainsworth et al. 2023, algorithm 3), several sets of networks side by side."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..bank import Bank, average, check_finite, check_same_architecture
from ..checks import check_bank, check_permutations
from ..matching.descent import Descent, outer
from ..matching.scale import lifted, overflow_named
from ..matching.weights import match_weights
from ..progress import track
from ..random_streams import Seed, generator
from ..resources import plain_torch, side_by_side
from .averages import merge_naive
from .batch_norm import finished
from .distances import CONVERGENCE, merged_labels, pairwise_distance, squared_norms, with_history


@plain_torch()
def merge_many(
    bank: Bank,
    *,
    max_sweeps: int = CONVERGENCE,
    limits: Sequence[int] | None = None,
    seed: Seed = 0,
    pixels: torch.Tensor | None = None,
) -> Bank:
    """MergeMany: re-align each network to the mean of the others until nothing changes; the mean of all.

    Of two networks it is the pair merge: the second moves, with the layer order that `merge_pairs` takes.

    Args:
        bank: the networks to merge; not changed.
        max_sweeps: most sweeps over the networks.
        limits: several limits at once, in place of ``max_sweeps``; the result then holds one network for each.
        seed: of the orders of networks and layers.
        pixels: training images (image, channel, y, x), which batch norm is measured on anew.

    Returns:
        One network, or one for each limit, with the variables of `hrebasin.merging.distances.HISTORY`.

    Raises:
        ValueError: fewer than two networks, weights that are not finite, limits that are not positive and increasing.
    """
    check_bank(bank)
    return merge_many_sets([bank], limits=limits or (max_sweeps,), seeds=[seed], pixels=pixels)[0]


@plain_torch()
def merge_many_sets(
    banks: Sequence[Bank],
    *,
    limits: Sequence[int] = (CONVERGENCE,),
    seeds: Sequence[Seed],
    pixels: torch.Tensor | None = None,
) -> list[Bank]:
    """`merge_many` on several sets of networks side by side; results do not depend on the company."""
    if not banks or len(seeds) != len(banks):
        raise ValueError(f"{len(seeds)} seeds given for {len(banks)} sets of networks")
    limits = list(limits)
    if not limits or sorted(set(limits)) != limits or limits[0] < 1:
        raise ValueError(f"sweep limits must be positive and increasing, got {limits}")
    for bank in banks:
        check_same_architecture(bank, banks[0])
        if len(bank) < 2:
            raise ValueError(f"MergeMany needs at least 2 networks, got {len(bank)}")
        check_finite(bank, "MergeMany")
        check_permutations(bank)
    at_once = min(len(banks), torch.get_num_threads())
    with track(label="MergeMany", total=len(banks), unit="set") as progress:

        def merge(bank: Bank, seed: Seed) -> Bank:
            run = MergeManyRun(bank, limits, seed, at_once)
            while run.model is not None:
                run.realign()
            progress.update()
            return run.result()

        results = largest_first(merge, list(zip(banks, seeds, strict=True)), [len(bank) for bank in banks])
    return [finished(result, pixels) for result in results]


def largest_first(work: Callable, items: Sequence[tuple], sizes: Sequence[int]) -> list:
    """``[work(*item) for item in items]`` side by side on CPU threads; the largest, which take longest, begin."""
    order = sorted(range(len(items)), key=lambda k: -sizes[k])
    found = dict(zip(order, side_by_side(lambda k: work(*items[k]), order), strict=True))
    return [found[k] for k in range(len(items))]


def _times(bank: Bank, factor: float) -> Bank:
    """A merged bank with its parameters, and so its distances, times a factor."""
    scaled = {name: bank.tensors[name] * factor for name in bank.architecture.parameters}
    distance = bank.history.pairwise_distance
    history = bank.history.assign(pairwise_distance=distance.copy(data=distance.values * factor**2))
    return replace(bank, tensors=bank.tensors | scaled, history=history)


def merge_many_as_published(bank: Bank, *, max_sweeps: int = CONVERGENCE, seed: Seed = 0) -> tuple[Bank, int]:
    """Algorithm 3 as it is written: the oracle of `merge_many`, which saves most of the work and finds the same.

    Returns:
        The aligned networks, whose mean is the merged one, and the sweeps taken.
    """
    name = _stream(bank, seed)
    order, aligned = generator(f"model-order/{name}"), bank
    for sweep in range(max_sweeps):
        changed = False
        for k in torch.randperm(len(bank), generator=order).tolist():
            others = merge_naive(aligned.select([i for i in range(len(bank)) if i != k]))
            found = match_weights(others, aligned.select([k]), seed=f"{name}/sweep-{sweep}/model-{k}")
            changed |= any((perm != torch.arange(perm.shape[1])).any() for perm in found.permutations.values())
            moved = found.apply(aligned.select([k]))
            aligned = Bank.concat([moved if i == k else aligned.select([i]) for i in range(len(bank))])
        if not changed:
            break
    return aligned, sweep + 1


def _stream(bank: Bank, seed: Seed) -> str:
    """Name of a run's random streams: what it merges, not where."""
    labels = merged_labels(bank)
    place = {name: np.ravel(labels[name])[0] for name in ("group", "stage", "node")}
    return f"{seed}/group-{place['group']}/stage-{place['stage']}/node-{place['node']}"


class MergeManyRun:
    """One MergeMany run: networks as given, the permutations that align them, and the sum of the aligned ones.

    `realign` takes the network ``model``, and the run has ended when that is None.

    Only inner parameters, in which several permutations meet, are averaged over the others at every step. For an outer
    one, b, with a single permutation along one axis, the term (S - P b) b^T = S b^T - P (b b^T) comes from the sum S
    and a product b b^T that never changes. Rows of S change only where some network's units have moved; so do those of
    S b^T, which are kept.
    """

    def __init__(self, bank: Bank, limits: list[int], seed: Seed, at_once: int):
        tensors, self.up = lifted({name: bank.tensors[name] for name in bank.architecture.parameters})
        self.bank, self.limits, self.at_once = replace(bank, tensors=bank.tensors | tensors), limits, at_once
        bank = self.bank
        self.name = _stream(bank, seed)
        self.symmetry = bank.architecture.symmetry
        n, device, widths = len(bank), bank.device, self.symmetry.permutations
        self.permutations = {name: torch.arange(width, device=device).repeat(n, 1) for name, width in widths.items()}
        self.prices = {name: np.zeros((n, width)) for name, width in widths.items()}
        parameters = bank.architecture.parameters
        alone = outer(self.symmetry, dict.fromkeys(parameters))
        self.outer = {p: [key for key, _ in keys] for p, keys in alone.items()}
        self.axes = {key: axis for keys in alone.values() for key, axis in keys}
        permuted = {place.tensor for places in self.symmetry.places().values() for place in places}
        self.inner = [key for key in parameters if key in permuted and key not in self.axes]
        self.squares = {p: self._squares(p) for p in widths}
        self.total = {k: torch.empty_like(self._rows(k)[0]) for keys in self.outer.values() for k in keys}
        self.cross = {p: torch.empty_like(square) for p, square in self.squares.items()}  # S b^T of each network
        self.clock = 0  # counts changes
        self.moved = {p: torch.zeros(width, dtype=torch.int64) for p, width in widths.items()}  # last change of rows
        self.crossed = torch.full((n,), -1)  # the clock when S b^T was last brought up to date
        for p, width in widths.items():
            self._sum_rows(p, torch.arange(width, device=device))
        self._sum_inner()
        self.orders = generator(f"model-order/{self.name}")
        self.due = np.ones(n, dtype=bool)  # the others have moved since it was last aligned
        self.sweeps, self.seconds, self.changed, self.queue = 0, 0.0, False, self._order()
        self.kept: dict[int, Bank] = {}  # by limit, what is merged then
        self.model: int | None = None
        self._next()

    def _order(self) -> list[int]:
        order = torch.randperm(len(self.bank), generator=self.orders).tolist()
        return order if len(order) > 2 else [1, 0]

    def _rows(self, key: str) -> torch.Tensor:
        """An outer parameter as matrices (model, permuted unit, other)."""
        tensor = self.bank.tensors[key]
        return tensor.movedim(self.axes[key] + 1, 1).flatten(2) if tensor.ndim > 2 else tensor[..., None]

    def _squares(self, p: str) -> torch.Tensor:
        """Sum of b b^T over the outer parameters of a permutation, (model, unit, unit)."""
        size = self.symmetry.permutations[p]
        start = torch.zeros(len(self.bank), size, size, device=self.bank.device)
        return sum((self._rows(key) @ self._rows(key).mT for key in self.outer[p]), start=start)

    def _sum_rows(self, p: str, rows: torch.Tensor) -> None:
        """Sum the aligned networks anew in some rows of the parameters that only ``p`` permutes."""
        for key in self.outer[p]:
            tensors = self._rows(key)
            total = torch.zeros(len(rows), tensors.shape[2], device=tensors.device)
            for tensor, order in zip(tensors, self.permutations[p], strict=True):
                total += tensor[order[rows]]
            self.total[key][rows] = total

    def _aligned(self, model: int) -> dict[str, torch.Tensor]:
        """A network's inner parameters in its current order."""
        order = {name: perm[model] for name, perm in self.permutations.items()}
        return {key: self.symmetry.permute_tensor(key, self.bank.tensors[key][model], order) for key in self.inner}

    def _sum_inner(self) -> None:
        each = [self._aligned(model) for model in range(len(self.bank))]
        self.total |= {key: sum(aligned[key] for aligned in each) for key in self.inner}

    def realign(self) -> None:
        """Align the next network to the mean of the others."""
        start, model = time.perf_counter(), self.model
        aligned = self._aligned(model)
        descent = Descent(
            {key: (self.total[key] - own) / (len(self.bank) - 1) for key, own in aligned.items()},
            {key: self.bank.tensors[key][model] for key in self.bank.architecture.parameters},
            self.symmetry,
            permutations={name: perm[model] for name, perm in self.permutations.items()},
            prices={name: prices[model] for name, prices in self.prices.items()},
            constants={p: self._constant(p, model) for p in self.outer},
        )
        self.crossed[model] = self.clock
        stream = f"{self.name}/sweep-{self.sweeps}/model-{model}" if len(self.bank) > 2 else self.name
        with overflow_named(self.bank):
            descent.run(stream, CONVERGENCE)
        self._accept(model, aligned, descent)
        self.seconds += (time.perf_counter() - start) / self.at_once
        self._next()

    def _constant(self, p: str, model: int) -> torch.Tensor:
        """What does not change in C of a network against the mean of the others: from outer parameters."""
        cross = self.cross[p][model]
        rows = (self.moved[p] > self.crossed[model]).nonzero()[:, 0].to(cross.device)
        if len(rows):
            parts = ((self.total[key][rows], self._rows(key)[model]) for key in self.outer[p])
            cross[rows] = sum(total @ own.T for total, own in parts)
        return (cross - self.squares[p][model][self.permutations[p][model]]) / (len(self.bank) - 1)

    def _accept(self, model: int, before: dict[str, torch.Tensor], descent: Descent) -> None:
        self.due[model] = False
        rows = {}
        for name, prices in self.prices.items():
            prices[model] = descent.prices[name]
            moved = (descent.permutations[name] != self.permutations[name][model]).nonzero()[:, 0]
            if len(moved):
                rows[name] = moved
                self.permutations[name][model] = descent.permutations[name]
        if not rows:
            return
        self.clock += 1
        for p, moved in rows.items():
            self.moved[p][moved.cpu()] = self.clock
            self._sum_rows(p, moved)
        for key, after in self._aligned(model).items():
            self.total[key] += after - before[key]
        self.changed = True
        self.due[np.arange(len(self.bank)) != model] = True

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
        self._sum_inner()  # float32 sums drift when they are updated again and again
        if self.sweeps in self.limits or converged:
            merged = self._mean()
            distance = pairwise_distance(squared_norms(self.bank)[None], merged)
            merged = with_history(merged, distance, [self.sweeps], [converged], [self.seconds])
            for limit in self.limits:
                if limit not in self.kept and (limit == self.sweeps or converged):
                    self.kept[limit] = merged.relabel(sweeps=limit)
        return converged

    def _mean(self) -> Bank:
        """The merged network."""
        tensors, bank = {}, self.bank
        for key, shape in bank.architecture.shapes.items():
            if key not in self.total:  # nothing permutes it, or it is a buffer
                tensors[key] = average(self.symmetry.permute_tensor(key, bank.tensors[key], self.permutations))
                continue
            mean, axis = self.total[key] / len(bank), self.axes.get(key, 0)
            others = [size for number, size in enumerate(shape) if number != axis]
            tensors[key] = mean.reshape(shape[axis], *others).movedim(0, axis)[None].contiguous()
        return Bank(bank.architecture, tensors, merged_labels(bank) | {"method": "merge-many"})

    def result(self) -> Bank:
        """One merged network for each limit."""
        merged = Bank.concat([self.kept[limit] for limit in self.limits])
        return _times(merged, 2.0**-self.up) if self.up else merged
