"""How time and memory of each stage grow with the number of networks: each point in a process of its own."""

import gc
import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import psutil
import torch
import xarray as xr

from ...bank import Bank
from ...images.sources import Images
from ...lipschitz.bounds import measure
from ...merging.ablations import lines, permutation_choice
from ...merging.many import merge_many_sets
from ...merging.tree import merge_pairs, merge_tree
from ...networks import Architecture
from ...robustness.attacks import attack
from ...training.recipe import Recipe
from ...training.train import train

WIDTHS = {"small": (128, 128, 64), "full": (512, 512, 256)}  # hidden units
LEAVES = 16  # networks per tree
SET = 4  # networks a MergeMany set
EPSILONS = tuple(step / 1000 for step in range(21))  # pixel range
TRAINING = Recipe(epochs=2, batch_size=25)  # that is timed, and that makes the networks of other stages
N_IMAGES = 500  # for training and accuracies
ATTACKED, BOUNDED = 50, 2  # images
SAMPLING = 0.002  # seconds between two looks at the memory


def scaling(points: Mapping[str, Sequence[int]], images: Images, *, stages: Sequence[str] | None = None) -> xr.Dataset:
    """Time and peak memory of stages against the number of networks.

    Args:
        points: numbers of networks, multiples of 16, for some of the sizes of `WIDTHS`.
        images: the first 500 are used, or fewer.
        stages: some of `STAGES`; by default all.

    Returns:
        ``scaling_seconds``, ``scaling_memory`` (size, stage, n_models), not a number where not asked for. The memory is
        the peak beside the networks that go in and come out, in MB.
    """
    stages = list(STAGES) if stages is None else list(stages)
    if unknown := set(stages) - set(STAGES):
        raise ValueError(f"unknown stages {sorted(unknown)}; known are {list(STAGES)}")
    if bad := [n for counts in points.values() for n in counts if n < LEAVES or n % LEAVES]:
        raise ValueError(f"numbers of networks must be multiples of {LEAVES}, got {bad}")
    counts = sorted({n for some in points.values() for n in some})
    seconds, memory = np.full((2, len(points), len(stages), len(counts)), np.nan)
    part = images.first(min(N_IMAGES, len(images)))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for place, (size, some) in enumerate(points.items()):
            for row, stage in enumerate(stages):
                for n in some:
                    task = pool.submit(_point, size, stage, n, part, torch.get_num_threads())
                    where = place, row, counts.index(n)
                    seconds[where], memory[where] = task.result()
    return dataset(seconds, memory, sizes=list(points), stages=stages, counts=counts)


def dataset(
    seconds: np.ndarray, memory: np.ndarray, *, sizes: Sequence[str], stages: Sequence[str], counts: Sequence[int]
) -> xr.Dataset:
    """What `scaling` gives, from wall times in seconds and peak memory in MB, both (size, stage, n_models)."""
    dims, one = ("size", "stage", "n_models"), "1"
    return xr.Dataset(
        {
            "scaling_seconds": (dims, seconds, {"long_name": "wall time", "units": "s"}),
            "scaling_memory": (dims, memory, {"long_name": "peak memory beside the networks", "units": "MB"}),
        },
        coords={
            "size": ("size", np.array(sizes, dtype=object), {"long_name": "size of a network", "units": one}),
            "stage": ("stage", np.array(stages, dtype=object), {"long_name": "stage", "units": one}),
            "n_models": ("n_models", np.array(counts), {"long_name": "networks", "units": one}),
        },
    )


def _train(bank: Bank, images: Images) -> list[Bank]:
    return [train(bank.architecture, images, range(len(bank)), TRAINING)]


def _merge(bank: Bank, images: Images) -> list[Bank]:
    tree = merge_tree(bank, leaves=LEAVES)
    sets = list(bank.chunks(SET))
    return [*tree[1:], *merge_many_sets(sets, seeds=range(len(sets)))]


def _attack(bank: Bank, images: Images) -> list[Bank]:
    for kind in ("fgsm", "deepfool-linf"):
        attack(bank, images.pixels[:ATTACKED], images.labels[:ATTACKED], kind=kind, epsilons=EPSILONS)
    return []


def _regularity(bank: Bank, images: Images) -> list[Bank]:
    measure(bank, images.pixels[:ATTACKED], images.labels[:ATTACKED], radii=[0.3], bounded=BOUNDED)
    return []


def _ablations(bank: Bank, images: Images) -> list[Bank]:
    first, second = bank.select(slice(0, None, 2)), bank.select(slice(1, None, 2))
    lines(first, second, {"test": images}, np.linspace(0, 1, 5), seed="scaling")
    permutation_choice(first, second, images, seed="scaling")
    return []


STAGES: dict[str, Callable[[Bank, Images], list[Bank]]] = {
    "train": _train,
    "merge": _merge,
    "attack": _attack,
    "regularity": _regularity,
    "ablations": _ablations,
}


def _point(size: str, stage: str, n: int, images: Images, threads: int) -> tuple[float, float]:
    """Seconds and MB of one stage on n networks."""
    torch.set_num_threads(threads)
    architecture = Architecture(WIDTHS[size], len(images.classes), images.shape, *images.statistics())
    bank = train(architecture, images, range(n), TRAINING)
    bank = bank.relabel(group=np.arange(n) // LEAVES, node=np.arange(n) % LEAVES)
    few = images.first(min(len(images), 20))
    merge_pairs(bank.select(slice(0, 2)))  # compiles the assignment
    if stage in ("attack", "regularity"):
        STAGES[stage](bank.select(slice(0, 2)), few)  # first calls of the libraries below
    gc.collect()
    with PeakMemory() as peak:
        start = time.perf_counter()
        made = STAGES[stage](bank, images)
        seconds = time.perf_counter() - start
    networks = sum(tensor.nbytes for result in made for tensor in result.tensors.values())
    return seconds, max(0.0, peak.bytes - networks) / 1e6


class PeakMemory:
    """Largest resident memory of this process within a ``with`` block, above that at its start.

    Attributes:
        bytes: the difference, known after the block.
    """

    def __enter__(self):
        self.process, self.done = psutil.Process(), threading.Event()
        self.start = self.most = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self):
        while not self.done.wait(SAMPLING):
            self.most = max(self.most, self.process.memory_info().rss)

    def __exit__(self, *exception):
        self.most = max(self.most, self.process.memory_info().rss)
        self.done.set()
        self.thread.join()
        self.bytes = self.most - self.start


def straight_lines(measured: xr.Dataset) -> xr.Dataset:
    """Least-squares lines through the points of `scaling`.

    Returns:
        ``slope_seconds`` (s per network), ``slope_memory`` (MB per network) (size, stage), and ``bend`` (size, stage):
        the largest deviation of a time from its line, as a share of the longest time.
    """
    slope_seconds, slope_memory, bend = np.full((3, *measured.scaling_seconds.shape[:2]), np.nan)
    for place in np.ndindex(bend.shape):
        seconds = measured.scaling_seconds.values[place]
        there = np.isfinite(seconds)
        n = measured.n_models.values[there]
        if len(n) < 2:
            continue
        slope_memory[place], _ = line(n, measured.scaling_memory.values[place][there])
        slope_seconds[place], start = line(n, seconds[there])
        bend[place] = np.abs(seconds[there] - start - slope_seconds[place] * n).max() / seconds[there].max()
    dims = ("size", "stage")
    return xr.Dataset(
        {
            "slope_seconds": (dims, slope_seconds, {"long_name": "time a network", "units": "s"}),
            "slope_memory": (dims, slope_memory, {"long_name": "memory a network", "units": "MB"}),
            "bend": (dims, bend, {"long_name": "largest deviation from the line over the longest time", "units": "1"}),
        }
    )


def line(n: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the least-squares line through (point,) values."""
    slope, start = np.polyfit(n, values, 1)
    return float(slope), float(start)
