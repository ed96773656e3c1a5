"""Made-up data sets of the open questions with the layout of real ones; `synthetic.results` holds them too."""

import numpy as np
import xarray as xr

import synthetic
from hrebasin.merging.distances import CONVERGENCE
from hrebasin.study import questions
from hrebasin.study.questions.equal_accuracy import RISING
from hrebasin.study.questions.families import OTHERS

EPSILONS = [0.0, 0.005, 0.01, 0.015, 0.02, 0.1]
STRONG = ("fgsm", "fgsm-float32", "pgd-cross-entropy", "pgd-margin", "transfer-fgsm", "transfer-pgd", "worst")
MERGED = ("merge-many", "naive", "ensemble")
N_IMAGES = 100  # that are attacked
RECIPES = ("adam", "adam, crop-flip", "sgd", "sgd, crop-flip", "width x 0.5", "width x 2")
LAYERS = ("fc1", "fc2", "fc3", "fc4")


def rows_of(groups: int, kinds: list[dict]) -> list[dict]:
    """Labels of networks, each kind once in every group."""
    rows = [synthetic.PLAIN | kind | {"group": group} for group in range(groups) for kind in kinds]
    return [row | {"n_merged": 2 ** row["stage"]} for row in rows]


def robust(rows: list[dict], attacks: tuple[str, ...], noise: float, name: str) -> np.ndarray:
    """(model, attack, epsilon): later stages start lower and fall more slowly."""
    stage = synthetic.column(rows, "stage")[:, None, None]
    size, strength = np.array(EPSILONS), np.linspace(1, 0.8, len(attacks))[:, None]
    curve = (0.55 - 0.04 * stage) * np.exp(-size / (0.009 + 0.002 * stage)) * strength
    spread = 0.01 * noise * synthetic.normal(curve.shape[:1] + (1, 1), name)
    return np.clip(curve + spread * (size < 0.1), 0, 1)


def tree_kinds(stages: int) -> list[dict]:
    """The first node of each stage."""
    return [{"method": "tree" if stage else "unmerged", "stage": stage} for stage in range(stages + 1)]


def controls(groups: int, stages: int, noise: float, seed: int) -> xr.Dataset:
    """Merged networks five points more robust than all others as accurate, whose robustness rises as accuracy falls."""
    kinds = [kind | {"node": 0} for kind in tree_kinds(stages)]
    kinds += [{"method": name, "stage": stage} for name in MERGED for stage in range(1, stages + 1)]
    steps = np.arange(1, stages + 2)  # from almost as accurate as unmerged ones to less accurate than all merged ones
    for family in OTHERS:
        strengths = 100.0 / steps if family in RISING else 0.1 * steps
        kinds += [{"method": family, "strength": float(strength)} for strength in strengths]
    rows = rows_of(groups, kinds)
    stage, strength = (synthetic.column(rows, name) for name in ("stage", "strength"))
    rising = np.isin(synthetic.column(rows, "method"), RISING)
    step = np.select([strength == 0, rising], [stage, 100 / np.maximum(strength, 1e-9)], 10 * strength) - 0.1
    accuracy = 0.55 - 0.04 * step
    merged = ((stage > 0) & (strength == 0))[:, None]
    spread = 0.01 * noise * synthetic.normal((len(rows), 1), f"controls/{seed}")
    rank = (np.arange(N_IMAGES) + 0.5) / N_IMAGES  # of an image: how easily it breaks
    right = 0.05 + 0.05 * merged + 0.03 * step[:, None] + spread > rank
    withstood = np.stack([right * 2, right * 2], axis=1).astype(np.int8)  # of two strong sizes
    size = np.array(EPSILONS)
    standing = right.mean(1)[:, None, None] * np.ones((1, 2, 1))
    robust = np.where(size >= 0.1, 0.0, np.where(size >= 0.015, standing, 1 - size / 0.015 * (1 - standing)))
    robust[..., 0] = accuracy[:, None]
    return synthetic.dataset(rows, {
        "test_accuracy": (("model",), accuracy, "1"),
        "robust_accuracy": (("model", "attack", "epsilon"), robust, "1"),
        "withstood": (("model", "attack", "image"), withstood, "sizes"),
        "zero_gradients": (("model",), np.zeros(len(rows)), "1"),
    }, attack=np.array(["fgsm", "pgd-margin"], dtype=object), epsilon=EPSILONS)  # fmt: skip


def strong(groups: int, stages: int, noise: float, seed: int) -> xr.Dataset:
    """The same order of stages under every attack; random search finds one image in ten that gradients leave."""
    kinds = tree_kinds(stages) + [{"method": "stopped", "strength": float(k)} for k in range(1, stages + 1)]
    rows = rows_of(groups, kinds)
    curves = robust(rows, STRONG, noise, f"strong/{seed}")
    rank = (np.arange(N_IMAGES) + 0.5) / N_IMAGES
    large = [EPSILONS.index(size) for size in (0.015, 0.02)]
    ones, withstood = np.ones(len(rows)), (curves[:, :, large, None] > rank).sum(2).astype(np.int8)
    return synthetic.dataset(rows, {
        "robust_accuracy": (("model", "attack", "epsilon"), curves, "1"),
        "withstood": (("model", "attack", "image"), withstood, "sizes"),
        "zero_gradients": (("model",), 0 * ones, "1"),
        "zero_gradients_float32": (("model",), 0.01 * ones, "1"),
        "searched": (("model",), 100 * ones, "images"),
        "found": (("model",), 10 * ones, "images"),
    }, attack=np.array(STRONG, dtype=object), epsilon=EPSILONS)  # fmt: skip


def mergers(groups: int, stages: int, noise: float, seed: int) -> xr.Dataset:
    """Lower distances, better merges; means of all networks but one get better with every sweep."""
    names = ("tree", "tree-random", "tree-nearest", "star", "fold", "merge-many-from-tree", "naive", "cycle-consistent")
    names += ("activations", "correlations", "straight-through", "ot-fusion", "ensemble")
    kinds, orders = [{"method": "unmerged"}], [0]
    for stage in range(2, stages + 1):
        kinds += [{"method": name, "stage": stage} for name in names]
        orders += [0] * len(names)
        for limit in (1, 2, 5, CONVERGENCE):
            kinds += [{"method": "merge-many", "stage": stage, "sweeps": limit, "node": order} for order in range(2)]
            orders += [0, 1]
        kinds += [{"method": "leave-one-out", "stage": stage, "sweeps": sweeps} for sweeps in (0, 1, CONVERGENCE)]
        orders += [0] * 3
    rows = rows_of(groups, kinds)
    for row in rows:
        row["n_merged"] -= row["method"] == "leave-one-out"
    methods = [row["method"] for row in rows]
    place = np.array([list(dict.fromkeys(methods)).index(method) for method in methods])
    sweeps, stage = synthetic.column(rows, "sweeps"), synthetic.column(rows, "stage")
    accuracy = 0.5 - 0.03 * stage + 0.004 * place + 0.01 * np.log1p(sweeps) / 5
    accuracy = accuracy + 0.004 * noise * synthetic.normal(len(rows), f"mergers/{seed}")
    ones, pairs = np.ones(len(rows)), 2.0**stage * (2.0**stage - 1) / 2
    alone = synthetic.column(rows, "method") == "unmerged"
    barriers = np.where(alone, 1.0, np.nan)[:, None] * np.array([2.0, 0.5])
    return synthetic.dataset(rows, {
        "test_accuracy": (("model",), accuracy, "1"),
        "test_loss": (("model",), 1.5 * ones - 0.1 * np.log1p(sweeps), "nat"),
        "pairwise_distance": (("model",), pairs * (900 - 400 * accuracy), "1"),
        "sweeps_done": (("model",), np.minimum(sweeps, 20), "1"),
        "converged": (("model",), np.int8(ones), "1"),
        "seconds": (("model",), 1 + sweeps / 10, "s"),
        "order": (("model",), np.tile(orders, groups), "1"),
        "images": (("model",), np.full(len(rows), 10_000), "1"),
        "strong_accuracy": (("model",), accuracy / 2, "1"),
        "repaired_accuracy": (("model",), accuracy + 0.02, "1"),
        "temperature": (("model",), ones, "1"),
        "nll": (("model",), 1.5 * ones, "nat"),
        "nll_fitted": (("model",), 1.4 * ones, "nat"),
        "ece": (("model",), 0.1 * ones, "1"),
        "ece_fitted": (("model",), 0.02 * ones, "1"),
        "loss_barrier": (("model", "alignment"), barriers, "nat"),
        "loss_barrier_fitted": (("model", "alignment"), barriers / 2, "nat"),
    }, alignment=np.array(["before", "after"], dtype=object))  # fmt: skip


def scale(groups: int, stages: int, noise: float, seed: int) -> xr.Dataset:
    """Half of the bounds' fall is scale; a penalty makes networks as accurate as stage 1, at a third of the bound."""
    kinds = tree_kinds(stages) + [{"method": "rescaled", "stage": stage} for stage in range(1, stages + 1)]
    kinds += [{"method": "l2", "strength": strength} for strength in (1e-4, 1e-2)]
    rows = rows_of(groups, kinds)
    stage, method = synthetic.column(rows, "stage"), synthetic.column(rows, "method")
    bounds, certificates = ("global", "eclipse-fast"), ("global", "eclipse-fast", "local")
    penalty = synthetic.column(rows, "strength") / 1e-2
    fall = np.where(method == "rescaled", 0.15, 0.3) * stage
    fall = fall + 0.02 * noise * synthetic.normal(len(rows), f"scale/{seed}") + np.where(penalty > 0, np.log10(3), 0)
    radius = 0.01 * (1 + np.where(method == "rescaled", 0, stage))[:, None] * np.arange(1, 4)
    return synthetic.dataset(rows, {
        "test_accuracy": (("model",), 0.55 - 0.04 * (stage + penalty), "1"),
        "lipschitz": (("model", "bound"), 10 ** (2 - fall)[:, None] * np.array([1, 0.6]), "logits per pixel range"),
        "gradient_norm": (("model",), 10 ** (1 - fall), "logits per pixel range"),
        "median_margin": (("model",), 1 / (1 + stage), "logit"),
        "certified_radius": (("model", "certificate"), radius, "pixel range"),
    }, bound=list(bounds), certificate=np.array(certificates, dtype=object))  # fmt: skip


def repair(groups: int, stages: int, noise: float, seed: int) -> xr.Dataset:
    """REPAIR gives half of the lost accuracy back, and the variance."""
    names = ("tree", "repair-children", "repair-leaves", "repair-along")
    kinds = [{"method": "unmerged"}] + [{"method": name, "stage": s} for s in range(1, stages + 1) for name in names]
    rows = rows_of(groups, kinds)
    stage, method = synthetic.column(rows, "stage"), synthetic.column(rows, "method")
    lost = np.where(method == "tree", 0.04, 0.02) * stage
    accuracy = 0.55 - lost + 0.004 * noise * synthetic.normal(len(rows), f"repair/{seed}")
    left = np.where(method == "tree", 0.7**stage, 1.0)[:, None] * np.linspace(1, 0.8, len(LAYERS))
    ones, curve = np.ones(len(rows)), robust(rows, ("fgsm", "deepfool-linf"), noise, f"repair/{seed}")
    return synthetic.dataset(rows, {
        "test_accuracy": (("model",), accuracy, "1"),
        "test_loss": (("model",), 1.5 * ones, "nat"),
        "robust_accuracy": (("model", "attack", "epsilon"), curve, "1"),
        "variance_ratio": (("model", "layer"), left, "1"),
        "feature_distance": (("model", "layer"), 0.05 * np.outer(stage, np.arange(1, 5)), "1"),
    }, attack=np.array(["fgsm", "deepfool-linf"], dtype=object), epsilon=EPSILONS, layer=list(LAYERS))  # fmt: skip


def recipes(groups: int, stages: int, noise: float, seed: int) -> xr.Dataset:
    """The tree is ahead of MergeMany under the first recipe alone."""
    kinds = tree_kinds(stages) + [{"method": "merge-many", "stage": stages, "sweeps": CONVERGENCE}]
    rows = [row for _ in RECIPES for row in rows_of(groups, kinds)]
    recipe = np.repeat(np.array(RECIPES, dtype=object), groups * len(kinds))
    stage, many = synthetic.column(rows, "stage"), synthetic.column(rows, "method") == "merge-many"
    accuracy = 0.5 - 0.04 * stage + many * np.where(recipe == RECIPES[0], -0.05, 0.05)
    accuracy = accuracy + 0.004 * noise * synthetic.normal(len(rows), f"recipes/{seed}")
    attacks = ("fgsm", "deepfool-linf")
    barrier = np.where((stage == 1) & ~many, 1.0, np.nan)[:, None] * np.array([0.8, 0.2])
    made = synthetic.dataset(rows, {
        "test_accuracy": (("model",), accuracy, "1"),
        "train_accuracy": (("model",), accuracy + 0.2, "1"),
        "robust_accuracy": (("model", "attack", "epsilon"), robust(rows, attacks, noise, "recipes"), "1"),
        "loss_barrier": (("model", "alignment"), barrier, "nat"),
        "accuracy_barrier": (("model", "alignment"), barrier / 4, "1"),
    }, attack=np.array(["fgsm", "deepfool-linf"], dtype=object), epsilon=EPSILONS,
        alignment=np.array(["before", "after"], dtype=object))  # fmt: skip
    names = np.array([f"{r}/{name}" for r, name in zip(recipe, made.model.values, strict=True)], dtype=object)
    about = synthetic.describe("recipe of training or width")
    return made.assign_coords(recipe=("model", recipe, about), model=("model", names, made.model.attrs))


QUESTIONS = {question.__name__: question for question in (controls, strong, mergers, scale, repair, recipes)}


def effects(stage: str, data: xr.Dataset) -> dict[str, float]:
    """Effects of the answer to a question by comparison."""
    return {test.name: test.effect for test in questions.load(stage).answer(data)[0]}
