"""The short answer: what came out of the paper's main findings, a paragraph each."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...merging.looks import RIVALS
from ..claims.verdicts import ALPHA
from ..groups import PERCENT, tree_stages
from ..questions.equal_accuracy import NEAR
from ..questions.families import MERGED
from ..questions.ways_beside_the_tree import size_of
from ..questions.wording import listed, span, two_digits, way_in_words
from .across_settings import in_points, rows_named, settings_with, strong_by_stage, verdicts_on
from .early_stopping import comparisons, near, other_ways
from .first_screen import ends_of_tree
from .ledger_text import NOTHING, part_of, sized, turned
from .over_unmerged import other_ways_lead, under_pgd
from .places import Published, Settings, quoted

FALLS = {"weight norms": "C7a", "Lipschitz bounds": "C8a"}
TREE = MERGED["tree"]
BOUND = "log10 global bound, stage 0 minus stage"  # begins the names of what merging does, and what shrinking does
ATTACKS = {"FGSM": "strong FGSM", "PGD on the margin": "PGD"}  # as comparisons name them
FIRST_RISE = "FGSM, strong: stage 1 minus stage 0"
CERTIFIED = "certified radius by the global bound, stage"
NEAR_CHANCE = 1.5  # times the accuracy of guessing, below which merged networks tell nothing but that


def in_short(settings: Settings) -> list[tuple[str, str]]:
    """The whole in a few words, accuracy, robustness, whether merging is what makes networks robust, and regularity: a
    paragraph each, but none where there is nothing to tell.
    """
    able = {name: each for name, each in settings.items() if not _guesses(each)}
    beside = list(_beside_stopped(settings))
    told = {
        "In short.": _in_a_few_words(settings, able, beside),
        "Accuracy.": _lost(settings),
        "Robustness.": [*_gain(able), *_rise(able), *other_ways_lead(able), *under_pgd(able)],
        "Is it the merging?": _against_stopped(beside),
        "Regularity.": [*_regularised(settings), *_certified(settings)],
    }
    return [(topic, text) for topic, sentences in told.items() if (text := " ".join(sentences))]


def _in_a_few_words(settings: Settings, able: Settings, beside: Sequence["_Beside"]) -> Iterator[str]:
    """What holds without a number; of robustness in those settings that are able to tell."""
    costs = all(part_of(each.ledger, "C11").low.item() > 0 for each in settings.values())
    if costs and {*verdicts_on(settings, FALLS["weight norms"]).values()} == {"reproduced"}:
        yield "Merging in the paper's tree costs accuracy and shrinks weight norms in every setting, as the paper says."
    strong = verdicts_on(able, "C5b fgsm")
    words = {"more": settings_with(strong, "reproduced"), "less": settings_with(strong, "contradicted")}
    if told := [f"{word} robust in {where}" for word, where in words.items() if where]:
        unsure = settings_with(strong, "not resolved")
        unsure = f"; in {unsure} that is not resolved" * bool(unsure)
        yield f"Under strong FGSM, fully merged networks are {' and '.join(told)} than unmerged ones{unsure}."
    tree = [one for one in beside if one.way == TREE]
    if tree and all(one.sign <= 0 for one in tree):
        yield "In no comparison are networks of this tree more robust than early-stopped ones of the same accuracy."


def _lost(settings: Settings) -> Iterator[str]:
    """What merging a pair and a whole tree costs, and where merged networks are close to guessing."""
    pair, whole, leaves, guessing = {}, {}, {}, {}
    for name, each in settings.items():
        first, last = ends_of_tree(each.results["merge"].test_accuracy)
        cost = part_of(each.ledger, "C11").effect.item()
        if _guesses(each):
            guessing[name] = cost, last, _chance(each)
        else:
            pair[name], whole[name] = cost, first - last
            leaves[name] = 2 ** max(tree_stages(each.results["merge"]))
    if pair:
        outside = f"Outside {quoted(guessing)}, merging" if guessing else "Merging"
        whole_tree = f"a whole tree (of {span(leaves.values()).replace('to', 'or')} networks) {span(whole.values())}"
        yield f"{outside} two networks costs {span(pair.values())} points of accuracy, merging {whole_tree}."
    for name, (cost, last, chance) in guessing.items():
        yield (
            f"In `{name}`, merging two costs {two_digits(cost)} points, and fully merged networks hardly do better "
            f"than guessing ({last:.0f} % beside {chance:.0f} %), so that their robustness tells nothing."
        )


def _guesses(of: Published) -> bool:
    """Whether fully merged networks hardly do better than guessing."""
    return ends_of_tree(of.results["merge"].test_accuracy)[1] < NEAR_CHANCE * _chance(of)


def _chance(of: Published) -> float:
    return PERCENT / of.results["merge"].attrs["n_classes"]


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _gain(settings: Settings) -> Iterator[str]:
    """Where fully merged networks are more robust than unmerged ones."""
    strong, told = verdicts_on(settings, "C5b fgsm"), []
    for verdict, word in {"reproduced": "better", "contradicted": "worse"}.items():
        sizes = {name: abs(part_of(settings[name].ledger, "C5b fgsm").effect.item()) for name in strong}
        where = [f"`{name}` ({two_digits(sizes[name])} points)" for name, found in strong.items() if found == verdict]
        told += [f"{word} in {listed(where)}"] * bool(where)
    if told:
        merged = "Networks fully merged in the paper's tree"
        yield f"{merged} withstand strong FGSM {' and '.join(told)} than unmerged ones."
    unsure: dict[str, list[str]] = {"significant after correction": [], "resolved": []}
    for name in (name for name, found in strong.items() if found == "not resolved"):
        part = part_of(settings[name].ledger, "C5b fgsm")
        word, size = ("trail", turned(part)) if part.effect < 0 else ("lead", part)
        kind = "significant after correction" if part.p <= ALPHA else "resolved"
        unsure[kind].append(f"in `{name}` they {word} by {in_points(sized(size))}")
    for kind, told in unsure.items():
        if told:
            neither = {1: ", which is not", 2: "; neither is"}.get(len(told), "; none is")
            yield f"{_upper(', and '.join(told))}{neither} {kind}."


def _rise(settings: Settings) -> Iterator[str]:
    """Where robustness rises with the first merge, and ends lower than it began."""
    for name in settings:
        rises = rows_named(settings[name].ledger, FIRST_RISE)
        whole = part_of(settings[name].ledger, "C5b fgsm").effect
        if whole < 0 and any(row.low.item() > 0 for row in rises):
            means = strong_by_stage(settings[name].results)
            top = max(means, key=means.get)
            yield (
                f"In `{name}` the accuracy under strong FGSM first rises, from {means[0]:.1f} to {means[top]:.1f} % "
                f"for networks merged from {2**top}, and then falls to {means[max(means)]:.1f} %."
            )


def _against_stopped(beside: Sequence["_Beside"]) -> Iterator[str]:
    """Whether any merged networks are more robust than early-stopped ones as accurate."""
    tree, rest = ([one for one in beside if (one.way == TREE) == own] for own in (True, False))
    if tree:
        if all(one.sign <= 0 for one in tree):
            yield "Not in the paper's tree."
        yield "Early-stopped networks are unmerged, and trained for fewer epochs."
        alike = f"those of the same accuracy (within {NEAR * PERCENT:.0f} point)"
        yield f"Networks merged in the paper's tree trail {alike} {_counted(tree)}. {_leads(tree)}"
    if rest:
        yield f"Networks merged in other ways trail them {_counted(rest)}. {_leads(rest)}"


class _Beside(NamedTuple):
    """Merged networks beside early-stopped ones about as accurate; ``sign``: 1 where they lead, -1 where they trail."""

    setting: str
    way: str
    size: int
    attack: str
    effect: float
    sign: int


def _beside_stopped(settings: Settings) -> Iterator[_Beside]:
    """All such comparisons; of two networks the tree's alone, and of ways that are no family those of most networks."""
    for name, each in settings.items():
        for one in filter(near, comparisons(each)):
            way = MERGED[one.method]
            if way == TREE or one.size > 2 or "MergeMany" not in way:  # which of two is the pair merge
                yield _Beside(name, way, one.size, ATTACKS[one.attack], one.row.effect.item(), one.sign)
        for way, test in other_ways(each.results).items():
            size, title = size_of(each.results["mergers"]), way_in_words(RIVALS[way][0])
            yield _Beside(name, title, size, ATTACKS["FGSM"], test.effect, test.sign)


def _counted(found: Sequence[_Beside]) -> str:
    """In how many comparisons they trail: "in 12 of 14 comparisons under strong FGSM and in all 11 under PGD"."""
    told = []
    for attack in ATTACKS.values():
        if signs := [one.sign for one in found if one.attack == attack]:
            n = {0: "none of", len(signs): "all"}.get(n := signs.count(-1), f"{n} of")
            lacking = {one.setting for one in found} - {one.setting for one in found if one.attack == attack}
            without = f" (not compared in {quoted(sorted(lacking))})" * bool(lacking)
            told.append(f"in {n} {len(signs)}{' comparisons' * (not told)} under {attack}{without}")
    return " and ".join(told)


def _leads(found: Sequence[_Beside]) -> str:
    """Who leads, by how much, and what PGD says of it."""
    effects, leading = {one[:4]: one.effect for one in found}, {}
    for one in (one for one in found if one.sign > 0):
        size = f"of {one.size}"
        name = one.way.replace("tree", f"tree {size}") if "tree" in one.way else f"{one.way} {size}"
        about = f" under {one.attack}"
        if one.attack == ATTACKS["FGSM"]:
            searched = effects.get((*one[:3], ATTACKS["PGD on the margin"]))
            about = "; not attacked with PGD" if searched is None else f"; under PGD {searched:.1f}"
        leading.setdefault(one.setting, []).append(f"{name} (by {one.effect:.1f} points{about})")
    told = [f"in `{setting}`, {listed(names)}" for setting, names in leading.items()]
    return f"They lead in {sum(map(len, leading.values()))}: {'; '.join(told)}." if told else "They lead in none."


def _regularised(settings: Settings) -> Iterator[str]:
    """Whether weight norms and bounds fall, how, and whether smaller weights alone do as much."""
    measured = {name: verdicts_on(settings, part) for name, part in FALLS.items()}
    falling = [name for name, found in measured.items() if {*found.values()} - {NOTHING} == {"reproduced"}]
    if falling:
        subject = listed(falling)
        linear = {*verdicts_on(settings, "C7b").values()} - {NOTHING} == {"contradicted"}
        only = ", but not linearly" if len(falling) == 1 else ", but norms not linearly"
        unless = only * (linear and "weight norms" in falling)
        yield f"{_upper(subject)} fall at every stage, as the paper says{unless}."
    for name in falling:
        where = [setting for setting, verdict in measured[name].items() if verdict != NOTHING]
        if len(where) < len(settings):
            yield f"{_upper(name)} were measured in {quoted(where)} alone."
    for name, found in measured.items():
        if name not in falling and "reproduced" in found.values():
            unsure = settings_with(found, "not resolved")
            rest = f"; that is not resolved in {unsure}" * bool(unsure)
            yield f"{_upper(name)} fall at every stage in {settings_with(found, 'reproduced')}{rest}."
    shrunk = []
    for name, each in settings.items():
        if falls := rows_named(each.answers, BOUND):
            merging, shrinking = (row.effect.item() for row in falls)
            shrunk += [f"{two_digits(10 ** (shrinking - merging))} (`{name}`)"] * (shrinking > merging)
    if shrunk:
        yield (
            "Bounds alone say little: unmerged networks scaled down layer by layer to the same norms give the same "
            f"answers as before, and yet have global bounds {listed(shrunk)} times lower than merged ones."
        )


def _certified(settings: Settings) -> Iterator[str]:
    """Where the radius falls within which the global bound makes answers certain."""
    found = {name: rows_named(each.answers, CERTIFIED) for name, each in settings.items()}
    if fall := [name for name, rows in found.items() if any(row.high.item() < 0 for row in rows)]:
        radius = "The mean radius within which that bound certifies an answer, 0 for wrong ones,"
        yield f"{radius} is smaller for fully merged networks than for unmerged ones in {quoted(fall)}."
