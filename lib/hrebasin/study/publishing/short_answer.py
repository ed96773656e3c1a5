"""The short answer: the paper's main findings beside what came out, a sentence each."""

from collections.abc import Iterator, Mapping
from itertools import product

from ...merging.looks import RIVALS
from ..groups import PERCENT
from ..questions.equal_accuracy import NEAR
from ..questions.wording import listed, two_digits, way_in_words
from ..statistics import by_sign
from .across_settings import rows_named, settings_with, verdicts_on
from .early_stopping import comparisons, other_ways
from .first_screen import ends_of_tree
from .ledger_text import NOTHING
from .places import Published

FALLS = {"weight norms": "C7a", "Lipschitz bounds": "C8a"}
BOUND = "log10 global bound, stage 0 minus stage"  # begins the names of what merging does, and what shrinking does
TREES = {"tree": "", "activations": " by activations"}
ATTACKS = {"FGSM": "strong FGSM", "PGD on the margin": "PGD, a stronger attack,"}  # as comparisons name them


def in_short(settings: Mapping[str, Published]) -> str:
    """Robustness, then early stopping, what is smaller, and the accuracy that merging costs.

    Args:
        settings: by name, the main one first.
    """
    return " ".join([*_gain(settings), *_against_stopped(settings), *_regularised(settings), *_lost(settings)])


def _gain(settings: Mapping[str, Published]) -> Iterator[str]:
    """Where fully merged networks are more robust than unmerged ones."""
    strong = verdicts_on(settings, "C5b fgsm")
    words = {"reproduced": "better", "contradicted": "worse"}
    told = [
        f"{word} in {settings_with(strong, verdict)}" for verdict, word in words.items() if verdict in strong.values()
    ]
    if told:
        yield f"Fully merged networks withstand strong FGSM {' and '.join(told)} than unmerged ones."


def _against_stopped(settings: Mapping[str, Published]) -> Iterator[str]:
    """Whether any merged networks are more robust than early-stopped ones as accurate."""
    than, ahead = "better than early-stopped networks of the same accuracy", []
    for (method, how), (attack, name), (setting, each) in product(TREES.items(), ATTACKS.items(), settings.items()):
        if sizes := _ahead(each, attack, method):
            ahead.append(method)
            yield f"In `{setting}`, networks merged from {sizes}{how} withstand {name} {than}."
    if "tree" not in ahead:
        yield from _behind(settings)
    for setting, each in settings.items():
        if ways := by_sign(other_ways(each.results))[1]:
            names = listed([way_in_words(RIVALS[way][0]) for way in ways])
            yield f"In `{setting}`, other ways to merge lead under FGSM: {names}. We have not tried PGD on them."


def _behind(settings: Mapping[str, Published]) -> Iterator[str]:
    """In how many comparisons networks merged in the tree trail early-stopped ones, where they lead in none."""
    told = []
    for attack, name in ATTACKS.items():
        ends = [
            one.row.high.item()
            for each in settings.values()
            for one in comparisons(each)
            if (one.attack, one.method) == (attack, "tree") and abs(one.gap) <= NEAR * PERCENT
        ]
        if ends:
            all_of = "all" if (trail := sum(end < 0 for end in ends)) == len(ends) else f"{trail} of"
            told.append(f"{all_of} {len(ends)} comparisons under {name.rstrip(',')}")
    if told:
        yield "Where we can compare, networks merged in the paper's tree never lead early-stopped ones as accurate."
        yield f"They trail in {' and in '.join(told)}."


def _ahead(of: Published, attack: str, method: str) -> str:
    """Numbers of networks that a method merged which lead early-stopped networks as accurate under an attack."""
    alike = [one for one in comparisons(of) if (one.attack, one.method, one.gap) == (attack, method, 0)]
    return listed([str(one.size) for one in alike if one.row.low.item() > 0])


def _regularised(settings: Mapping[str, Published]) -> Iterator[str]:
    """Whether weight norms and bounds fall, how, and whether smaller weights alone do as much."""
    measured = {name: verdicts_on(settings, part) for name, part in FALLS.items()}
    falling = [name for name, found in measured.items() if {*found.values()} - {NOTHING} == {"reproduced"}]
    if falling:
        subject = listed(falling)
        linear = {*verdicts_on(settings, "C7b").values()} - {NOTHING} == {"contradicted"}
        unless = ", but norms not linearly" * (linear and "weight norms" in falling)
        yield f"{subject[0].upper()}{subject[1:]} fall at every stage, as the paper says{unless}."
    for name in falling:
        where = [f"`{setting}`" for setting, verdict in measured[name].items() if verdict != NOTHING]
        if len(where) < len(settings):
            yield f"{name[0].upper()}{name[1:]} were measured in {listed(where)} alone."
    for name, found in measured.items():
        if name not in falling and "reproduced" in found.values():
            yield f"{name[0].upper()}{name[1:]} fall at every stage in {settings_with(found, 'reproduced')}."
    shrunk = []
    for name, each in settings.items():
        if falls := rows_named(each.answers, BOUND):
            merging, shrinking = (row.effect.item() for row in falls)
            shrunk += [f"{two_digits(10 ** (shrinking - merging))} (`{name}`)"] * (shrinking > merging)
    if shrunk:
        yield f"Unmerged networks shrunk to the same norms have bounds {listed(shrunk)} times lower than merged ones."


def _lost(settings: Mapping[str, Published]) -> Iterator[str]:
    """The settings in which merging costs least and most accuracy."""
    ends = {name: ends_of_tree(each.results["merge"].test_accuracy) for name, each in settings.items()}
    order = sorted(ends, key=lambda name: ends[name][0] - ends[name][1])
    for name, most in dict(zip((order[0], order[-1]), ("least", "most"), strict=True)).items():
        first, last = ends[name]
        yield f"Accuracy falls {most} in `{name}`: from {first:.1f} to {last:.1f} %."
