"""What a run costs before it starts: operations and bytes of each stage, and the hours that follow from a machine.

python -m hrebasin.study.running.costs paper

Hours are predictions. Operations of products, and bytes of what must be read and written again and again, follow from
the profile; assignments follow from it and from how many sweeps were seen to be needed. A machine has a rate for each,
of which a stage gets the share that was measured (see `SHARES`).
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise

from ...files import project_root
from ...training.recipe import Recipe
from ..settings import Profile, load_profile
from ..stages import NOTEBOOKS, STAGES

SAMPLE = {"train": 4_000, "test": 1_000}  # images of cifar10-sample
WHOLE = {"train": 50_000, "test": 10_000}  # images of CIFAR-10
# Seen on CIFAR-10 with 512-512-256 hidden units: weight matching of a pair solves about 43 assignments; MergeMany of n
# needs about 4 n sweeps, and about 10 assignments each time it aligns a network.
SOLVES_A_PAIR, SWEEPS_A_NETWORK, SOLVES_AN_ALIGNMENT = 43, 4, 10
# Over all images, most of which need two steps or, misclassified anyway, none; a step takes a gradient for each class.
DEEPFOOL_STEPS, CANDIDATES = 1, 10
STATE = 7 * 4  # bytes a parameter and step: Adam reads weight, moments and gradient and writes weight and moments


@dataclass(frozen=True)
class Work:
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

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: float) -> "Work":
        return Work(*(getattr(self, f.name) * times for f in fields(self)))


@dataclass(frozen=True)
class Machine:
    """Rates of a machine.

    Attributes:
        name: for the table.
        products: FLOP/s by precision.
        exact: float64, FLOP/s.
        bandwidth: of memory, bytes/s.
        solves: assignments a second, with their products.
        measured: whether a whole run was timed on it; otherwise its rates are data sheets' or another machine's.
    """

    name: str
    products: Mapping[str, float]
    exact: float
    bandwidth: float
    solves: float
    measured: bool = False


# Two cores: product rates and solves by `make bench` (AMD EPYC with AVX-512). Sixteen: eight times as many. H100: data
# sheet (SXM: bfloat16 dense, float32 without tensor cores, float64 with), assignments on 16 cores.
TWO_CORES = Machine("2 cores", {"float32": 190e9, "bfloat16": 415e9}, 90e9, 20e9, 520, measured=True)
SIXTEEN_CORES = Machine("16 cores", {"float32": 1.5e12, "bfloat16": 3.3e12}, 0.7e12, 100e9, 8 * 520)
H100 = Machine("one H100, 16 cores", {"float32": 67e12, "bfloat16": 989e12}, 67e12, 3.35e12, 8 * 520)
MACHINES = (TWO_CORES, SIXTEEN_CORES, H100)
# Share of the product rate that a stage gets. On CPUs as measured, on a GPU assumed until measured.
SHARES = {
    "cpu": {"train": 0.75, "merge": 0.8, "attack": 0.65, "regularity": 0.35, "ablations": 0.5},
    "gpu": {"train": 0.25, "merge": 0.3, "attack": 0.2, "regularity": 0.02, "ablations": 0.3},
}


def work(profile: Profile, *, n_images: Mapping[str, int], image_size: int = 3072, n_classes: int = 10) -> dict:
    """Work of each stage for all groups of a profile.

    Args:
        profile: its values; 0 images stand for all.
        n_images: ``{"train": ..., "test": ...}``, of the data set.
        image_size: inputs of a network.
        n_classes: outputs of a network.

    Returns:
        `Work` by stage.
    """
    units = [image_size, *profile.widths, n_classes]
    first, *rest = (a * b for a, b in pairwise(units))
    network = first + sum(rest)  # multiplications of a network for an image, and nearly its parameters
    n_train = profile.train_images or n_images["train"]
    n_test = profile.test_images or n_images["test"]
    evaluated = min(profile.evaluated_images, n_train) + min(profile.evaluated_images, n_test)
    penalised = (len(profile.l1_strengths) + len(profile.l2_strengths)) * profile.regularised_models
    penalised *= min(max(profile.regularised_groups - profile.first_group, 0), profile.n_groups) / profile.n_groups
    sets = {size: min(profile.merge_many_sets, profile.leaves // size) for size in profile.merge_many_sizes}
    limits = len(profile.merge_many_limits)
    trained, nodes = profile.leaves + penalised, profile.leaves - 1
    merged = nodes + sum(sets.values()) * (limits + 1)  # with naive averages
    attacked = trained + nodes + sum(sets.values())
    passes = trained * profile.epochs * n_train
    steps = passes / profile.batch_size

    def forward(times: float) -> Work:
        return Work(products=2 * network * times)

    solves = {2: SOLVES_A_PAIR} | {n: SWEEPS_A_NETWORK * n * n * SOLVES_AN_ALIGNMENT for n in sets if n > 2}
    eps, magnitudes = len(profile.epsilons), len(profile.noise_magnitudes)
    gradients = DEEPFOOL_STEPS * (1 + 2 * CANDIDATES) * 2  # two norms; a gradient costs two passes
    attack = (2 + 2 * eps) + gradients + 2 * magnitudes * profile.noise_draws  # passes for an image and network
    hidden = sum(4 / 3 * w**3 for w in profile.widths) + sum(2 * a * b * b for a, b in pairwise(profile.widths))
    local = profile.bounded_images * len(profile.radii) * hidden
    jacobian = profile.attacked_images * 2 * n_classes * sum(rest)
    spectra = sum(2 * a * b * min(a, b) for a, b in pairwise(units)) * 2
    pairs = profile.ablation_pairs
    line = pairs * 2 * profile.n_lambdas * evaluated * sum(rest) + pairs * 4 * evaluated * network
    choice = pairs * 4 * min(profile.evaluated_images, n_test) * network
    a_group = {
        "train": Work(2 * passes * (2 * first + 3 * sum(rest)), bytes=steps * STATE * network)
        + forward(trained * n_test),
        "merge": Work(solves=nodes * SOLVES_A_PAIR + sum(sets[n] * solves[n] for n in sets))
        + forward((trained + merged) * evaluated),
        "attack": forward(attacked * profile.attacked_images * attack),
        "regularity": Work(exact=attacked * (local + jacobian + spectra)),
        "ablations": Work(products=2 * (line + choice), solves=pairs * 5 * SOLVES_A_PAIR),
    }
    return {stage: a_group[stage] * profile.n_groups for stage in STAGES}


def hours(stages: Mapping[str, Work], machine: Machine, precision: str) -> dict[str, float]:
    """Hours of each stage: products / (rate x share) or bytes / bandwidth, whichever is more, plus solves / rate.

    Only training follows ``precision``; other products are float32.
    """
    shares, result = SHARES["gpu" if "H100" in machine.name else "cpu"], {}
    for stage, amount in stages.items():
        rate = machine.products[precision if stage == "train" else "float32"]
        seconds = amount.products / (rate * shares[stage]) + amount.exact / (machine.exact * shares[stage])
        result[stage] = (max(seconds, amount.bytes / machine.bandwidth) + amount.solves / machine.solves) / 3600
    return result


def table(profile: Profile, *, n_images: Mapping[str, int] | None = None) -> str:
    """Work and hours of each stage as a Markdown table."""
    n_images = n_images or (SAMPLE if profile.dataset == "cifar10-sample" else WHOLE)
    stages = work(profile, n_images=n_images)
    columns = {machine.name: hours(stages, machine, profile.precision) for machine in MACHINES}
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


def gpu_memory(profile: Profile, card: float, *, n_images: Mapping[str, int] = WHOLE) -> dict[str, tuple[str, float]]:
    """What a stage handles at once on a GPU with ``card`` bytes of memory, and its predicted peak in bytes.

    Args:
        profile: its values.
        card: memory of the GPU, bytes.
        n_images: ``{"train": ..., "test": ...}``, of the data set.
    """
    from ...lipschitz import bounds as regularity
    from ...networks import Architecture
    from ...robustness import attacks as robustness
    from ...training import train as training

    architecture = Architecture(tuple(profile.widths))
    network, inputs = 4 * architecture.n_parameters, architecture.units[0]
    n_train, n_test = profile.train_images or n_images["train"], profile.test_images or n_images["test"]
    element = 2 if profile.precision == "bfloat16" else 4
    images = n_train * inputs * (1 + element * (n_train * inputs * element <= card / 4))  # normalised once if they fit
    each = training.network_bytes(architecture, Recipe(batch_size=profile.batch_size, precision=profile.precision))
    bank = max(1, min(training.BANK_SIZE, int(0.5 * (card - images) // each)))
    sample = robustness.COPIES * 4 * inputs
    samples = max(1, min(robustness.SAMPLES_AT_ONCE["cuda"], int(0.25 * card // sample)))
    shard = profile.groups_per_shard * (3 * profile.leaves + 5 * len(profile.merge_many_sizes))  # all that is merged
    matrix, first = 8 * max(profile.widths) ** 2, 4 * profile.widths[0]
    at_once, copies = regularity.BOUNDED_AT_ONCE["cuda"], regularity.NETWORKS_AT_ONCE * regularity.COPIES * 2
    pairs = profile.ablation_pairs * profile.groups_per_shard
    return {
        "train": (f"{bank} networks", images + bank * each),
        "merge": (f"{shard} networks", 3 * shard * network + 2 * n_test * inputs),
        "attack": (f"{samples:,} samples", samples * sample + shard * network),
        "regularity": (f"{at_once} images", shard * network + copies * network + 8 * at_once * matrix),
        "ablations": (f"{pairs} pairs", 4 * pairs * network + 6 * pairs * 2500 * first),
    }


def memory_table(profile: Profile, cards: Mapping[float, int] | None = None) -> str:
    """What fits on GPUs of several sizes, and the predicted peak, as a Markdown table.

    Args:
        profile: its values.
        cards: groups that one notebook handles, by memory of the GPU in bytes; by default the profile's on 80 GB and
            one on 8 GB.
    """
    cards = cards or {80e9: profile.groups_per_shard, 8e9: 1}
    names = [f"at once on {card / 1e9:.0f} GB, `groups_per_shard={n}` | peak, GB" for card, n in cards.items()]
    rows = [f"| stage | {' | '.join(names)} |", "|---" * (1 + 2 * len(cards)) + "|"]
    columns = [gpu_memory(replace(profile, groups_per_shard=n), card) for card, n in cards.items()]
    for stage in STAGES:
        cells = [f"{column[stage][0]} | {column[stage][1] / 1e9:.1f}" for column in columns]
        rows.append(f"| `{NOTEBOOKS[stage]}` | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """The command line: the table of a profile."""
    parser = argparse.ArgumentParser(prog="python -m hrebasin.study.running.costs", description=__doc__.splitlines()[0])
    parser.add_argument("profile", help="name of a file in config/")
    parser.add_argument("--groups", type=int, help="trees; by default the profile's")
    given = parser.parse_args(arguments)
    try:
        profile = load_profile(project_root() / "config" / f"{given.profile}.yaml", n_groups=given.groups)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{profile.n_groups} trees of {profile.leaves}, predicted:\n\n{table(profile)}\nOn a GPU:\n")
    print(memory_table(profile))
    return 0


if __name__ == "__main__":
    sys.exit(main())
