"""What settings have in common and what they change: the short answer, and a paragraph a question."""

import re
from collections.abc import Iterator, Mapping
from itertools import product

import xarray as xr

from ...merging.looks import RIVALS
from ..contrasts import STRONG, WEAK, between
from ..groups import PERCENT, count_groups, tree, tree_stages
from ..questions.families import NOT_COMPARABLE
from ..questions.ways_to_merge import most_accurate
from ..questions.wording import listed, two_digits, way_in_words
from ..statistics import by_sign
from .answers_text import told_questions
from .first_screen import ends_of_tree, other_ways, told_other_ways
from .ledger_text import NOTHING, part_of, sized, turned
from .places import ORDER, Published

COMPARED = {"C11": "A pair merge costs", "C5b fgsm": "Under strong FGSM, the lead of fully merged networks is"}
OTHERS = {  # setting -> what it has that the main networks have not
    "convolutional": "convolutional networks with batch norm",
    "residual": "residual networks with layer norm",
}


FALLS = {"weight norms": "C7a", "Lipschitz bounds": "C8a"}
STOPPED = "Are networks merged in a tree more robust than early-stopped ones of the same accuracy?"
UNSURE = ", which is not significant once corrected for the number of tests"
BARRIER = ": accuracy barrier after matching"  # end of the names of a recipe's comparisons
BOUND = "log10 global bound, stage 0 minus stage"  # begins the names of what merging does, and what shrinking does
AUGMENTED = "what crop and flip change of the gain"


EQUAL = re.compile(r"(.+), strong, at equal accuracy: (\S+) of (\d+) minus early-stopped networks")
TREES = {"tree": "", "activations": " by activations"}
ATTACKS = {"FGSM": "strong FGSM", "PGD on the margin": "PGD, a stronger attack,"}  # as comparisons name them


def paragraphs(settings: Mapping[str, Published]) -> list[tuple[str, str]]:
    """Each question that settings answer together, and the answer.

    Args:
        settings: by name, the main one first.
    """
    word, told = early_stopped(settings)
    return [
        (STOPPED, " ".join(filter(None, [word, *told]))),
        ("Is the tree ever more accurate than MergeMany?", _tree_or_many(settings)),
        ("What does augmentation change?", _augmentation(settings)),
        ("What do convolutional and residual networks change?", _architectures(settings)),
        ("Is the drop in accuracy near zero, as the authors of Git Re-Basin report?", _barrier(settings)),
    ]


def in_short(settings: Mapping[str, Published]) -> str:
    """The paper's main findings beside what came out, and early stopping, in a sentence each."""
    return " ".join([*_gain(settings), *_against_stopped(settings), *_regularised(settings), *_lost(settings)])


def _gain(settings: Mapping[str, Published]) -> Iterator[str]:
    """Where fully merged networks are more robust than unmerged ones."""
    strong = _verdicts(settings, "C5b fgsm")
    words = {"reproduced": "better", "contradicted": "worse"}
    told = [f"{word} in {_in(strong, verdict)}" for verdict, word in words.items() if verdict in strong.values()]
    if told:
        yield f"Fully merged networks withstand strong FGSM {' and '.join(told)} than unmerged ones."


def _against_stopped(settings: Mapping[str, Published]) -> Iterator[str]:
    """Whether any merged networks are more robust than early-stopped ones as accurate."""
    than, ahead = "better than early-stopped networks of the same accuracy", []
    for (method, how), (attack, name), (setting, each) in product(TREES.items(), ATTACKS.items(), settings.items()):
        if sizes := _beside_stopped(each, attack, 1, method):
            ahead.append(method)
            yield f"In `{setting}`, networks merged from {sizes}{how} withstand {name} {than}."
    if "tree" not in ahead and any(
        _beside_stopped(each, attack, -1) for each in settings.values() for attack in ATTACKS
    ):
        yield f"No network merged in the paper's tree withstands {' or '.join(ATTACKS.values())} {than}."
    for setting, each in settings.items():
        if ways := by_sign(other_ways(each.results))[1]:
            names = listed([way_in_words(RIVALS[way][0]) for way in ways])
            yield f"Other ways to merge do so in `{setting}` under FGSM: {names}. We have not tried PGD on them."


def _regularised(settings: Mapping[str, Published]) -> Iterator[str]:
    """Whether weight norms and bounds fall, how, and whether smaller weights alone do as much."""
    measured = {name: _verdicts(settings, part) for name, part in FALLS.items()}
    falling = [name for name, found in measured.items() if {*found.values()} - {NOTHING} == {"reproduced"}]
    if falling:
        subject = listed(falling)
        linear = {*_verdicts(settings, "C7b").values()} - {NOTHING} == {"contradicted"}
        unless = ", but norms not linearly" * (linear and "weight norms" in falling)
        yield f"{subject[0].upper()}{subject[1:]} fall at every stage, as the paper says{unless}."
    for name, found in measured.items():
        if name not in falling and "reproduced" in found.values():
            yield f"{name[0].upper()}{name[1:]} fall at every stage in {_in(found, 'reproduced')}."
    shrunk = []
    for name, each in settings.items():
        if falls := _rows(each.answers, BOUND):
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


def _beside_stopped(of: Published, attack: str, sign: int, method: str = "tree") -> str:
    """Numbers of networks whose tree leads early-stopped networks as accurate under an attack (1), or trails (-1)."""
    if of.answers is None:
        return ""
    rows = [(EQUAL.fullmatch(str(row.comparison.item())), row) for row in _rows(of.answers, "early-stopped")]
    rows = [(match[3], row) for match, row in rows if match and match.groups()[:2] == (attack, method)]
    return listed([size for size, row in rows if sign * row[("low", "high")[sign < 0]].item() > 0])


def stages_table(settings: Mapping[str, Published]) -> tuple[list[str], list[list[str]]]:
    """Accuracy by stage, without attack and under weak and strong FGSM, of each setting: the head, and rows."""
    head, rows = ["setting", "stage", "test accuracy (%)", "weak FGSM (%)", "strong FGSM (%)"], []
    for name, (_, _, results, _) in settings.items():
        robust = results["attack"].robust_accuracy.sel(attack="fgsm")
        under = [xr.DataArray(between(robust, *sizes), dims="epsilon") for sizes in (WEAK, STRONG)]
        columns = [results["merge"].test_accuracy, *((robust * weights).sum("epsilon") for weights in under)]
        for stage in tree_stages(results["merge"]):
            values = [float(tree(each.rename("accuracy"), stage).mean()) * PERCENT for each in columns]
            rows.append([name, str(stage), *(f"{value:.1f}" for value in values)])
    return head, rows


def early_stopped(settings: Mapping[str, Published]) -> tuple[str, list[str]]:
    """The answer to `STOPPED`: a word where all settings say the same, and of each setting what it says.

    With ways to merge that may change it.
    """
    leads = {name: lead for name, each in settings.items() if (lead := _lead(each, "controls"))}
    if not leads:
        return "Not measured yet.", []
    words, rests = zip(*(lead.split(". ", 1) for lead in leads.values()), strict=True)
    compared = list(dict.fromkeys(word for word in words if word != NOT_COMPARABLE))
    told = []
    for name, word, rest in zip(leads, words, rests, strict=True):
        asked, trees = (count_groups(data) for data in map(settings[name].results.get, ("controls", "merge")))
        where = f"In `{name}`{f' ({asked} of {trees} trees)' * (asked < trees)}"
        said = f"{where}, {rest[0].lower()}{rest[1:]}" if [word] == compared else f"{where}: {word}. {rest}"
        told.append(" ".join(filter(None, [said, told_other_ways(settings[name].results)])))
    unless = ", where they can be compared" * (NOT_COMPARABLE in words)
    alike = f"{compared[0]}, for trees matched by weights as in the paper{unless}." if len(compared) == 1 else ""
    return alike, told


def _tree_or_many(settings: Mapping[str, Published]) -> str:
    converged, once = (_verdicts(settings, part) for part in ("C1a", "C1b"))
    if "reproduced" in converged.values():
        first = f"Yes, in {_in(converged, 'reproduced')}."
    elif "reproduced" in once.values():
        first = f"Only if MergeMany stops after one sweep, in {_in(once, 'reproduced')}."
    else:
        first = "No." if set(converged.values()) == {"contradicted"} else "Not resolved."
    said = [first]
    for name, each in settings.items():
        if converged[name] != NOTHING:
            for part, found, other in (
                ("C1a", converged, "converged MergeMany"),
                ("C1b", once, "MergeMany after one sweep"),
            ):
                row = part_of(each.ledger, part)
                if row.low <= 0 <= row.high:
                    said.append(f"In `{name}`, it is not resolved against {other}: {_in_points(sized(row))}.")
                    continue
                word, unsure = "less" if row.effect < 0 else "more", found[name] == "not resolved"
                size = _in_points(sized(turned(row) if row.effect < 0 else row))
                said.append(f"In `{name}`, the tree of 4 is {word} accurate than {other}, by {size}{UNSURE * unsure}.")
    return " ".join(said)


def _augmentation(settings: Mapping[str, Published]) -> str:
    said = []
    for name, each in settings.items():
        changes = _rows(each.answers, AUGMENTED)
        for row in changes:
            attack = row.comparison.item().partition(", ")[0]
            cut = row.effect < 0
            size = _in_points(sized(turned(row) if cut else row))
            said.append(f"They {'cut' if cut else 'raise'} what merging gains under strong {attack} by {size}.")
        if changes:
            said.insert(0, f"To isolate crop and flip, we trained `{name}` with and without them, on few images.")
            break
    if {"plain", "augmented"} <= set(settings):
        said.append("`augmented` differs from `plain` in more: a hidden layer, twice the epochs, products in bfloat16.")
        said += _side_by_side(settings, "plain", "augmented")
    return " ".join([*said, *_missing(settings, "augmented")])


def _architectures(settings: Mapping[str, Published]) -> str:
    main, said = next(iter(settings)), []
    for name, text in OTHERS.items():
        if name in settings:
            merge = settings[name].results["merge"]
            said += [f"`{name}` has {text} and images of {merge.attrs['data_source']}."]
            said += [*_side_by_side(settings, main, name), *_batch_norm(merge)]
            if "mergers" in settings[name].results:
                said.append(f"In `{name}`, {most_accurate(settings[name].results['mergers'])}")
    return " ".join([*said, *_missing(settings, *OTHERS)])


def _batch_norm(merge: xr.Dataset) -> list[str]:
    """What it costs to average the running statistics of batch norm, where a setting has them."""
    if "averaged_norms_accuracy" not in merge:
        return []
    said = ["The running statistics of batch norm are measured anew after every merge."]
    for stage in (1, tree_stages(merge)[-1]):
        columns = (merge[name] for name in ("averaged_norms_accuracy", "test_accuracy"))
        averaged, anew = (PERCENT * float(tree(each, stage).mean()) for each in columns)
        said.append(f"With their averages, networks merged from {2**stage} reach {averaged:.1f} %, not {anew:.1f} %.")
    return said


def _barrier(settings: Mapping[str, Published]) -> str:
    verdicts = {name: found for name, found in _verdicts(settings, "C11").items() if found != NOTHING}
    if not verdicts:
        return "Not measured yet."
    several = len(verdicts) > 1
    near, least = _in(verdicts, "contradicted"), min(verdicts, key=lambda name: _value(settings[name], "C11"))
    recipes = [row for each in settings.values() for row in _rows(each.answers, BARRIER)]
    small = sum(bool(row.low <= 0) for row in recipes)
    if near:
        first = f"Yes, in {near}."
    elif set(verdicts.values()) == {"reproduced"}:
        first = "Not when trained on all images, but perhaps when trained on few." if small else "No."
    elif "reproduced" in verdicts.values():
        first = f"Not in {_in(verdicts, 'reproduced')}. It is not resolved in {_in(verdicts, 'not resolved')}."
    else:
        first = "Not resolved."
    said = [f"{first} A pair merge costs {_points(settings[least], 'C11')} in `{least}`{', the least' * several}."]
    if recipes:
        nearest = min(recipes, key=lambda row: row.effect.item())
        said.append(f"In {small} of {len(recipes)} small experiments (recipes and widths, few images) it may be zero.")
        name = nearest.comparison.item().removesuffix(BARRIER)
        said.append(f"The smallest barrier is that of {name}: {_in_points(sized(nearest))}.")
    return " ".join(said)


def _rows(asked: xr.Dataset | None, text: str) -> list[xr.Dataset]:
    """The comparisons whose name holds a text, where questions were asked."""
    names = [] if asked is None else asked.comparison.values.tolist()
    return [asked.isel(row=k) for k, name in enumerate(names) if text in name]


def _side_by_side(settings: Mapping[str, Published], first: str, second: str) -> list[str]:
    return [
        f"{text} {_points(settings[first], part)} in `{first}` and {_points(settings[second], part)} in `{second}`."
        for part, text in COMPARED.items()
    ]


def _missing(settings: Mapping[str, Published], *names: str) -> list[str]:
    missing = [f"`{name}`" for name in names if name not in settings]
    return [f"Not measured yet: {', '.join(missing)}."] if missing else []


def _lead(of: Published, stage: str) -> str:
    """What stands first in an answer; empty where it was not asked."""
    asked = told_questions(of.answers) if of.answers is not None else []
    return next((one["lead"] for one in asked if one["stage"] == stage), "")


def _verdicts(settings: Mapping[str, Published], part: str) -> dict[str, str]:
    return {name: part_of(each.ledger, part).verdict.item() for name, each in settings.items()}


def _in(verdicts: Mapping[str, str], verdict: str) -> str:
    return listed([f"`{name}`" for name, found in verdicts.items() if found == verdict])


def _points(of: Published, part: str) -> str:
    return _in_points(_effect(of.ledger, part))


def _in_points(text: str) -> str:
    size, _, spread = text.partition(" (")
    return f"{size} points ({spread}" if spread else size if size == NOTHING else f"{size} points"


def _value(of: Published, part: str) -> float:
    return part_of(of.ledger, part).effect.item()


def _effect(ledger: xr.Dataset, part: str) -> str:
    return sized(part_of(ledger, part))


def unknown(settings: Mapping[str, Published], *, networks: int, devices: set[str]) -> str:
    """What nothing published tells, in sentences.

    Args:
        settings: by name.
        networks: that were trained, of the largest setting.
        devices: that measured.
    """
    said = [
        "We have not read the paper's full text.",
        f"The paper trained 1600 networks; our largest published setting has {networks}.",
        *_missing(settings, *ORDER, "paper"),
    ]
    asked = {name: 0 if each.answers is None else each.answers.sizes["asked"] for name, each in settings.items()}
    if few := [f"`{name}`" for name, n in asked.items() if n < max(asked.values())]:
        said.append(f"Some open questions were not asked in {listed(few)}.")
    if not any("cuda" in device for device in devices):
        said.append("Nothing was measured on a GPU.")
    said.append(
        "Answers to open questions, such as that on early stopping, rest on few trees and are not corrected for the "
        "number of comparisons."
    )
    return " ".join(said)
