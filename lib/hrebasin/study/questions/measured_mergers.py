"""What every way to merge the same networks makes: measured for the question "MergeMany or tree?"."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import xarray as xr

from ...bank import Bank
from ...calibration import calibrated
from ...evaluation import IMAGES_AT_ONCE, batches_of, means, scores
from ...images.sources import Images
from ...matching.weights import match_weights
from ...merging.aligned_many import align_many_by_sweeps
from ...merging.averages import average_aligned, place_of
from ...merging.batch_norm import measure_batch_norm
from ...merging.distances import CONVERGENCE, with_history
from ...merging.ensemble import ensemble
from ...merging.methods import MERGES
from ...merging.path import interpolate
from ...merging.repair import moments, repair
from ...random_streams import Seed
from ...resources import side_by_side
from ...robustness.attacks import attack
from ..groups import is_strong

BESIDE = ("naive", "tree", "merge-many-from-tree")  # merged whatever the rivals are
LEFT_OUT = "leave-one-out"  # means of all networks but one
PAIRS = 4  # of neighbours, whose barriers are measured
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
ALIGNMENTS = ("before", "after")
BARRIERS = {"loss_barrier": "test_loss", "loss_barrier_fitted": "nll_fitted"}


@dataclass(frozen=True)
class Looks:
    """How networks are looked at.

    Attributes:
        images: test images.
        attacked: how many of them, the first ones.
        epsilons: of strong FGSM.
        train: training images, for the methods that need some, for REPAIR and for batch norm.
        limits: of MergeMany's sweeps, the largest of which stands for convergence.
        seed: of all orders.
    """

    images: Images
    attacked: int
    epsilons: Sequence[float]
    train: Images
    limits: Sequence[int]
    seed: Seed

    @torch.no_grad()
    def at(self, bank: Bank) -> xr.Dataset:
        """Accuracy, loss and calibration on test images, (model,), their number, and what is not measured yet."""
        images = self.images
        logits = torch.cat([bank(pixels) for pixels, _ in batches_of(images, IMAGES_AT_ONCE)], dim=1)
        found = means(bank, scores(logits, images.labels), len(images))
        parts = [found.rename(accuracy="test_accuracy", loss="test_loss"), calibrated(bank, logits, images.labels)]
        if bank.history is not None:
            parts.append(bank.history.reset_coords(drop=True).assign_coords(found.coords))
        found = xr.merge(parts, compat="identical", combine_attrs="override").drop_attrs(deep=False)
        columns = {
            "strong_accuracy": (np.nan, "accuracy under strong FGSM"),
            "repaired_accuracy": (np.nan, "accuracy with REPAIR"),
            "images": (len(images), "test images behind the loss"),
            "order": (0, "draw of the orders"),
        }
        added = {
            name: bank.array(np.full(len(bank), value), long_name=text, units="1")
            for name, (value, text) in columns.items()
        }
        axis = xr.Variable("alignment", np.array(ALIGNMENTS, dtype=object), {"long_name": "alignment", "units": "1"})
        for name in BARRIERS:
            text = "loss barrier to the next network" + ", temperatures fitted" * name.endswith("fitted")
            values, about = np.full((len(bank), len(ALIGNMENTS)), np.nan), {"long_name": text, "units": "nat"}
            added[name] = bank.array(values, ("model", "alignment"), alignment=axis, **about)
        return found.assign(added)

    def under_attack(self, bank: Bank) -> xr.Dataset:
        """`at`, with mean accuracy under FGSM over the strong sizes."""
        found, few = self.at(bank), self.images.first(min(self.attacked, len(self.images)))
        attacked = attack(bank, few.pixels, few.labels, kind="fgsm", epsilons=self.epsilons)
        found.strong_accuracy[:] = attacked.robust_accuracy.mean("epsilon").values
        return found

    def at_both(self, plain: Bank, repaired: Bank) -> xr.Dataset:
        """`under_attack`, and accuracy with REPAIR."""
        found = self.under_attack(plain)
        found.repaired_accuracy[:] = self.at(repaired).test_accuracy.values
        return found


def measure(
    bank: Bank,
    images: Images,
    train: Images,
    *,
    rivals: Sequence[str],
    sizes: Sequence[int],
    limits: Sequence[int],
    orders: int,
    attacked: int,
    epsilons: Sequence[float],
    seed: Seed = 0,
) -> xr.Dataset:
    """Every way to merge the same networks: a data set of stage ``mergers``.

    Args:
        bank: unmerged networks of some groups.
        images: test images.
        train: training images, for the methods that need some, for REPAIR and for batch norm.
        rivals: methods beside the tree, MergeMany, MergeMany from the tree, the naive average and the ensemble.
        sizes: how many networks of each group are merged, its first ones; powers of two.
        limits: of MergeMany's sweeps; the largest one stands for convergence.
        orders: draws of all orders, which are numbered in ``order``; the first is that of other stages. Of several
            sizes, only the one before the last is merged in all of them.
        attacked: the first test images, which are attacked.
        epsilons: of FGSM, of which the strong ones are taken.
        seed: of all orders.

    Returns:
        A row for each merged network, each leaf (method ``unmerged``) and each mean of all networks but one (method
        ``leave-one-out``, by MergeMany's ``sweeps`` before it). Networks are merged side by side, each on one thread,
        which is what ``seconds`` tell. What was not measured of a row is not a number.
    """
    strong = [epsilon for epsilon in epsilons if is_strong(epsilon)]
    looks, work = Looks(images, attacked, strong, train, limits, seed), []
    for group in dict.fromkeys(bank.labels["group"].tolist()):
        members = bank.where(group=group)
        work.append((len(members), partial(_unmerged, members, looks)))
        for size in sizes:
            repeats = orders if size == sizes[max(len(sizes) - 2, 0)] else 1
            work += [(size, each) for each in _jobs(members.select(slice(size)), [*BESIDE, *rivals], repeats, looks)]
    work.sort(key=lambda item: -item[0])  # the longest first
    found = side_by_side(lambda item: item[1](), work)
    return xr.concat(found, dim="model", coords="minimal", compat="override", combine_attrs="override")


def _jobs(some: Bank, names: Sequence[str], orders: int, looks: Looks) -> list[Callable[[], xr.Dataset]]:
    """What is to be done with a set of networks."""
    taken = [name for name in names if MERGES[name].takes(len(some))]
    jobs = [partial(_many, some, looks), partial(_ensemble, some, looks)]
    jobs += [partial(_merged, name, some, looks) for name in taken]
    again = [name for name in (*taken, "merge-many") if MERGES[name].draws]
    return jobs + [partial(_merged, name, some, looks, order) for order in range(1, orders) for name in again]


def _merged(name: str, some: Bank, looks: Looks, order: int = 0) -> xr.Dataset:
    """What a registered method makes in one of the orders, without and with REPAIR."""
    made = MERGES[name].both(some, f"{looks.seed}/order-{order}" if order else looks.seed, looks.train)
    sweeps = CONVERGENCE if name == "merge-many" else 0
    found = looks.at_both(*(bank.relabel(node=order, sweeps=sweeps) for bank in made))
    found.order[:] = order
    return found


def _many(some: Bank, looks: Looks) -> xr.Dataset:
    """MergeMany after several numbers of sweeps, and every mean of all networks but one on the way."""
    merged, aligned = align_many_by_sweeps(some, looks.limits, looks.seed)
    merged = measure_batch_norm(merged, looks.train.pixels)
    repaired = [_repaired_many(merged.select([k]), each, looks) for k, each in enumerate(aligned)]
    parts = [looks.at_both(merged, Bank.concat(repaired))]
    if len(some) > 2:
        for sweeps, networks in zip((0, *looks.limits), (some, *aligned), strict=True):
            without = [[k for k in range(len(some)) if k != left_out] for left_out in range(len(some))]
            left = Bank.concat([average_aligned(networks.select(rest), LEFT_OUT, 0, 0.0) for rest in without])
            left = measure_batch_norm(left, looks.train.pixels).relabel(node=range(len(some)), sweeps=sweeps)
            parts.append(looks.at(left))
    return xr.concat(parts, dim="model", coords="minimal", compat="override", combine_attrs="override")


def _repaired_many(merged: Bank, aligned: Bank, looks: Looks) -> Bank:
    targets = moments(aligned, looks.train.pixels).average([range(len(aligned))])
    return repair(merged, targets, looks.train.pixels)


def _ensemble(some: Bank, looks: Looks) -> xr.Dataset:
    """The networks together, which are not merged."""
    return looks.under_attack(with_history(ensemble(some), [np.nan], [0], [True], [0.0]))


def _unmerged(members: Bank, looks: Looks) -> xr.Dataset:
    """The networks themselves, and barriers between the first neighbours."""
    nothing = np.zeros(len(members))
    found = looks.under_attack(with_history(members, nothing, nothing.astype(int), nothing + 1, nothing))
    pairs = list(range(0, min(len(members) - 1, 2 * PAIRS), 2))
    first, second = members.select(pairs), members.select([k + 1 for k in pairs])
    seeds = [f"{looks.seed}/barrier/{place_of(members)}/{k}" for k in pairs]
    for column, other in enumerate((second, match_weights(first, second, seed=seeds).apply(second))):
        line = [looks.at(measure_batch_norm(point, looks.train.pixels)) for point in interpolate(first, other, LAMBDAS)]
        for name, loss in BARRIERS.items():
            curve = np.stack([point[loss].values for point in line])
            straight = np.outer(1 - np.array(LAMBDAS), curve[0]) + np.outer(LAMBDAS, curve[-1])
            found[name][pairs, column] = (curve - straight).max(0)
    return found
