"""What a run costs before it starts: operations and bytes of each stage, and the hours that follow from a machine.

Hours are predictions. Operations of products, and bytes of what must be read and written again and again, follow from
the setting; assignments follow from it and from how many sweeps were seen to be needed. A machine has a rate for each,
of which a stage gets the share that was measured (see `SHARES`).
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from ..settings import Setting
from ..stages import NOTEBOOKS, STAGES

# data set -> its images, and the inputs of a network; of others CIFAR-10's are taken
IMAGES = {
    "cifar10": ({"train": 50_000, "test": 10_000}, 3072),
    "cifar10-sample": ({"train": 4_000, "test": 1_000}, 3072),
    "fashion-mnist": ({"train": 60_000, "test": 10_000}, 784),
}
N_CLASSES = 10
# Seen on CIFAR-10 with 512-512-256 hidden units: weight matching of a pair solves about 43 assignments; MergeMany of n
# needs about 4 n sweeps, and about 10 assignments each time it aligns a network.
SOLVES_A_PAIR, SWEEPS_A_NETWORK, SOLVES_AN_ALIGNMENT = 43, 4, 10
# Over all images, most of which need two steps or, misclassified anyway, none; a step takes a gradient for each class.
DEEPFOOL_STEPS, CANDIDATES = 1, 10
STATE = 7 * 4  # bytes a parameter and step: Adam reads weight, moments and gradient and writes weight and moments


class Work(NamedTuple):
    """What a stage takes.

    Attributes:
        products: floating-point operations of products in the precision of the networks, FLOP.
        exact: floating-point operations in float64, FLOP.
        bytes: moved to and from memory, beside products.
        solves: assignments with their products, of layers as wide as the paper's.
    """

    products: float = 0.0
    exact: float = 0.0
    bytes: float = 0.0
    solves: float = 0.0


class Machine(NamedTuple):
    """Rates of a machine.

    Attributes:
        name: for the table.
        products: FLOP/s by precision.
        exact: float64, FLOP/s.
        bandwidth: of memory, bytes/s.
        solves: assignments a second, with their products.
    """

    name: str
    products: Mapping[str, float]
    exact: float
    bandwidth: float
    solves: float


# Two cores: product rates and solves by `make bench` (AMD EPYC with AVX-512). Sixteen: eight times as many, predicted.
MACHINES = (
    Machine("2 cores", {"float32": 190e9, "bfloat16": 415e9}, 90e9, 20e9, 520),
    Machine("16 cores", {"float32": 1.5e12, "bfloat16": 3.3e12}, 0.7e12, 100e9, 8 * 520),
)
# Share of the product rate that a stage gets, as measured.
SHARES = {"train": 0.75, "merge": 0.8, "attack": 0.65, "regularity": 0.35, "ablations": 0.5}


def work(setting: Setting) -> dict[str, Work]:
    """Work of each stage for all groups of a setting; ValueError for other networks than MLPs."""
    if setting.network != "mlp":
        raise ValueError(f"costs are known for MLPs alone, and the setting's networks are {setting.network}")
    n_images, image_size = IMAGES.get(setting.dataset, IMAGES["cifar10"])
    units = [image_size, *setting.widths, N_CLASSES]
    first, *rest = (a * b for a, b in pairwise(units))
    network = first + sum(rest)  # multiplications of a network for an image, and nearly its parameters
    n_train = setting.train_images or n_images["train"]  # 0 stands for all
    n_test = setting.test_images or n_images["test"]
    evaluated = min(setting.evaluated_images, n_train) + min(setting.evaluated_images, n_test)
    penalised = (len(setting.l1_strengths) + len(setting.l2_strengths)) * setting.regularised_models
    penalised *= min(max(setting.regularised_groups - setting.first_group, 0), setting.n_groups) / setting.n_groups
    sets = {size: min(setting.merge_many_sets, setting.leaves // size) for size in setting.merge_many_sizes}
    limits = len(setting.merge_many_limits)
    trained, nodes = setting.leaves + penalised, setting.leaves - 1
    merged = nodes + sum(sets.values()) * (limits + 1)  # with naive averages
    attacked = trained + nodes + sum(sets.values())
    passes = trained * setting.epochs * n_train
    steps = passes / setting.batch_size
    forward = 2 * network  # operations of a pass for an image
    solves = {2: SOLVES_A_PAIR} | {n: SWEEPS_A_NETWORK * n * n * SOLVES_AN_ALIGNMENT for n in sets if n > 2}
    eps, magnitudes = len(setting.epsilons), len(setting.noise_magnitudes)
    gradients = DEEPFOOL_STEPS * (1 + 2 * CANDIDATES) * 2  # two norms; a gradient costs two passes
    attack = (2 + 2 * eps) + gradients + 2 * magnitudes * setting.noise_draws  # passes for an image and network
    hidden = sum(4 / 3 * w**3 for w in setting.widths) + sum(2 * a * b * b for a, b in pairwise(setting.widths))
    local = setting.bounded_images * len(setting.radii) * hidden
    jacobian = setting.attacked_images * 2 * N_CLASSES * sum(rest)
    spectra = sum(2 * a * b * min(a, b) for a, b in pairwise(units)) * 2
    pairs = setting.ablation_pairs
    line = pairs * 2 * setting.n_lambdas * evaluated * sum(rest) + pairs * 4 * evaluated * network
    choice = pairs * 4 * min(setting.evaluated_images, n_test) * network
    a_group = {
        "train": Work(
            2 * passes * (2 * first + 3 * sum(rest)) + forward * (trained * n_test), bytes=steps * STATE * network
        ),
        "merge": Work(
            forward * ((trained + merged) * evaluated),
            solves=nodes * SOLVES_A_PAIR + sum(sets[n] * solves[n] for n in sets),
        ),
        "attack": Work(forward * (attacked * setting.attacked_images * attack)),
        "regularity": Work(exact=attacked * (local + jacobian + spectra)),
        "ablations": Work(products=2 * (line + choice), solves=pairs * 5 * SOLVES_A_PAIR),
    }
    return {stage: Work(*(amount * setting.n_groups for amount in a_group[stage])) for stage in STAGES}


def hours(stages: Mapping[str, Work], machine: Machine, precision: str) -> dict[str, float]:
    """Hours of each stage: products / (rate x share) or bytes / bandwidth, whichever is more, plus solves / rate.

    Only training follows ``precision``; other products are float32.
    """
    result = {}
    for stage, amount in stages.items():
        rate = machine.products[precision if stage == "train" else "float32"]
        seconds = amount.products / (rate * SHARES[stage]) + amount.exact / (machine.exact * SHARES[stage])
        result[stage] = (max(seconds, amount.bytes / machine.bandwidth) + amount.solves / machine.solves) / 3600
    return result


def table(setting: Setting) -> str:
    """Work and hours of each stage as a Markdown table."""
    stages = work(setting)
    columns = {machine.name: hours(stages, machine, setting.precision) for machine in MACHINES}
    names = [f"{machine.name}, h" for machine in MACHINES]
    rows = [f"| stage | products, TFLOP | float64, TFLOP | memory, TB | assignments | {' | '.join(names)} |"]
    rows += ["|---" * (5 + len(columns)) + "|"]
    for stage, amount in stages.items():
        counted = (amount.products / 1e12, amount.exact / 1e12, amount.bytes / 1e12, amount.solves)
        cells = [f"{value:,.0f}" for value in counted] + [f"{column[stage]:.2g}" for column in columns.values()]
        rows.append(f"| `{NOTEBOOKS[stage]}` | {' | '.join(cells)} |")
    totals = [f"{sum(column.values()):.2g}" for column in columns.values()]
    rows.append(f"| all | | | | | {' | '.join(totals)} |")
    return "\n".join(rows) + "\n"
