"""What settings have in common and what they change: a paragraph per question."""

from collections.abc import Mapping

import xarray as xr

from ..contrasts import STRONG, WEAK, between
from ..groups import PERCENT, Results, tree, tree_stages
from ..questions.ways_to_merge import most_accurate
from ..questions.wording import listed
from .early_stopping import STOPPED, early_stopped
from .ledger_text import NOTHING, part_of, sized, turned
from .places import ORDER, Published, Settings, quoted

COMPARED = {"C11": "A pair merge costs", "C5b fgsm": "Under strong FGSM, the lead of fully merged networks is"}
OTHERS = {  # setting -> what it has that the main networks have not
    "convolutional": "convolutional networks with batch norm",
    "residual": "residual networks with layer norm",
}
BARRIER = ": accuracy barrier after matching"  # end of the names of a recipe's comparisons
AUGMENTED = "what crop and flip change of the gain"


def paragraphs(settings: Settings) -> list[tuple[str, str]]:
    """Each question that settings answer together, and the answer."""
    word, told = early_stopped(settings)
    return [
        (STOPPED, " ".join(filter(None, [word, *told]))),
        ("Is the tree ever more accurate than MergeMany?", _tree_or_many(settings)),
        ("What does augmentation change?", _augmentation(settings)),
        ("What do convolutional and residual networks change?", _architectures(settings)),
        ("Is the drop in accuracy near zero, as the authors of Git Re-Basin report?", _barrier(settings)),
    ]


def stages_table(settings: Settings) -> tuple[list[str], list[list[str]]]:
    """Accuracy by stage, without attack and under weak and strong FGSM, of each setting: the head, and rows."""
    head, rows = ["setting", "stage", "test accuracy (%)", "weak FGSM (%)", "strong FGSM (%)"], []
    for name, (_, _, results, _) in settings.items():
        columns = [results["merge"].test_accuracy, *(_under_fgsm(results, sizes) for sizes in (WEAK, STRONG))]
        for stage in tree_stages(results["merge"]):
            values = [float(tree(each.rename("accuracy"), stage).mean()) * PERCENT for each in columns]
            rows.append([name, str(stage), *(f"{value:.1f}" for value in values)])
    return head, rows


def strong_by_stage(results: Results) -> dict[int, float]:
    """Accuracy under strong FGSM in percent, by stage."""
    mean = _under_fgsm(results, STRONG).rename("accuracy")
    return {stage: PERCENT * float(tree(mean, stage).mean()) for stage in tree_stages(results["merge"])}


def _under_fgsm(results: Results, sizes: tuple[float, float]) -> xr.DataArray:
    """Mean accuracy over sizes of FGSM between two ends, (model,)."""
    robust = results["attack"].robust_accuracy.sel(attack="fgsm")
    return (robust * xr.DataArray(between(robust, *sizes), dims="epsilon")).sum("epsilon")


def _tree_or_many(settings: Settings) -> str:
    converged, once = (verdicts_on(settings, part) for part in ("C1a", "C1b"))
    if "reproduced" in converged.values():
        first = f"Yes, in {settings_with(converged, 'reproduced')}."
    elif "reproduced" in once.values():
        first = f"Only if MergeMany stops after one sweep, in {settings_with(once, 'reproduced')}."
    else:
        first = "No." if set(converged.values()) == {"contradicted"} else "Not resolved."
    besides = {"converged MergeMany": ("C1a", converged), "MergeMany after one sweep": ("C1b", once)}
    return " ".join([first, *(_beside_many(settings, other, *found) for other, found in besides.items())])


def _beside_many(settings: Settings, other: str, part: str, verdicts: Mapping[str, str]) -> str:
    """How much more or less accurate the tree is than a MergeMany, in every setting."""
    told, unsure, still_open = [], [], []
    for name in (name for name, verdict in verdicts.items() if verdict != NOTHING):
        row = part_of(settings[name].ledger, part)
        if row.low <= 0 <= row.high:
            still_open.append(name)
            continue
        word, row = ("less", turned(row)) if row.effect < 0 else ("more", row)
        told.append(f"{in_points(sized(row))} {word} accurate in `{name}`")
        unsure += [name] * (verdicts[name] == "not resolved")
    said = [f"Beside {other}, the tree of 4 is {listed(told)}."] * bool(told)
    if unsure:
        said.append(f"In {quoted(unsure)} that is not significant once corrected for the number of tests.")
    if still_open:
        said.append(f"{'It' if told else f'Beside {other}, it'} is not resolved in {quoted(still_open)}.")
    return " ".join(said)


def _augmentation(settings: Settings) -> str:
    said = []
    for name, each in settings.items():
        changes = rows_named(each.answers, AUGMENTED)
        for row in changes:
            attack = row.comparison.item().partition(", ")[0]
            cut = row.effect < 0
            size = in_points(sized(turned(row) if cut else row))
            said.append(f"They {'cut' if cut else 'raise'} what merging gains under strong {attack} by {size}.")
        if changes:
            said.insert(0, f"To isolate crop and flip, we trained `{name}` with and without them, on few images.")
            break
    if {"plain", "augmented"} <= set(settings):
        said.append("`augmented` differs from `plain` in more: a hidden layer, twice the epochs, products in bfloat16.")
        said += _side_by_side(settings, "plain", "augmented")
        said.append("How much of that difference crop and flip make was not measured on all images.")
    return " ".join([*said, *_missing(settings, "augmented")])


def _architectures(settings: Settings) -> str:
    said = []
    for name, text in OTHERS.items():
        if name in settings:
            merge = settings[name].results["merge"]
            said += [f"`{name}` has {text} and images of {merge.attrs['data_source']}."]
            said += [*_side_by_side(settings, name), *_batch_norm(merge)]
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


def _barrier(settings: Settings) -> str:
    verdicts = {name: found for name, found in verdicts_on(settings, "C11").items() if found != NOTHING}
    if not verdicts:
        return "Not measured yet."
    several = len(verdicts) > 1
    near, least = settings_with(verdicts, "contradicted"), min(verdicts, key=lambda name: _value(settings[name], "C11"))
    recipes = [row for each in settings.values() for row in rows_named(each.answers, BARRIER)]
    small = sum(bool(row.low <= 0) for row in recipes)
    if near:
        first = f"Yes, in {near}."
    elif set(verdicts.values()) == {"reproduced"}:
        first = "Not when trained on all images, but perhaps when trained on few." if small else "No."
    elif "reproduced" in verdicts.values():
        not_near, unsure = (settings_with(verdicts, verdict) for verdict in ("reproduced", "not resolved"))
        first = f"Not in {not_near}. It is not resolved in {unsure}."
    else:
        first = "Not resolved."
    said = [f"{first} A pair merge costs {_points(settings[least], 'C11')} in `{least}`{', the least' * several}."]
    if recipes:
        nearest = min(recipes, key=lambda row: row.effect.item())
        name = nearest.comparison.item().removesuffix(BARRIER)
        some = f"Of {len(recipes)} small experiments (recipes and widths, few images)"
        said.append(f"{some}, {name} has the smallest barrier: {in_points(sized(nearest))}.")
    return " ".join(said)


def rows_named(of: xr.Dataset | None, text: str) -> list[xr.Dataset]:
    """The comparisons of a ledger, or of answers where questions were asked, whose name holds a text."""
    if of is None:
        return []
    [dim] = of.comparison.dims
    return [of.isel({dim: k}) for k, name in enumerate(of.comparison.values.tolist()) if text in name]


def _side_by_side(settings: Settings, *names: str) -> list[str]:
    return [
        f"{text} {listed([f'{_points(settings[name], part)} in `{name}`' for name in names])}."
        for part, text in COMPARED.items()
    ]


def _missing(settings: Settings, *names: str) -> list[str]:
    missing = [f"`{name}`" for name in names if name not in settings]
    return [f"Not measured yet: {', '.join(missing)}."] if missing else []


def verdicts_on(settings: Settings, part: str) -> dict[str, str]:
    """The verdict on a part of a claim under each setting."""
    return {name: part_of(each.ledger, part).verdict.item() for name, each in settings.items()}


def settings_with(verdicts: Mapping[str, str], verdict: str) -> str:
    """The settings that have a verdict, listed."""
    return quoted(name for name, found in verdicts.items() if found == verdict)


def _points(of: Published, part: str) -> str:
    return in_points(sized(part_of(of.ledger, part)))


def in_points(text: str) -> str:
    """A size with its interval, in points: "8.1 points (7.6 to 8.8)"."""
    size, _, spread = text.partition(" (")
    return f"{size} points ({spread}" if spread else size if size == NOTHING else f"{size} points"


def _value(of: Published, part: str) -> float:
    return part_of(of.ledger, part).effect.item()


def unknown(settings: Settings) -> str:
    """What nothing published tells, in sentences."""
    trained = [each.results["train"] for each in settings.values()]
    networks = max(int((data.method == "unmerged").sum()) for data in trained)
    said = [f"The paper trained 1600 networks; our largest published setting has {networks}."]
    about = {"fashion": " (MLPs on Fashion-MNIST)", "paper": " (1600 networks)"}
    if missing := [f"`{name}`{about.get(name, '')}" for name in (*ORDER, "paper") if name not in settings]:
        said.append(f"Nothing is published of {listed(missing)}.")
    asked = {name: 0 if each.answers is None else each.answers.sizes["asked"] for name, each in settings.items()}
    if few := [name for name, n in asked.items() if n < max(asked.values())]:
        said.append(f"Some open questions were not asked in {quoted(few)}.")
    if not any("cuda" in data.attrs.get("device", "") for data in trained):
        said.append("Nothing was measured on a GPU.")
    said.append(
        "Answers to open questions, such as that on early stopping, rest on few trees and are not corrected for the "
        "number of comparisons."
    )
    return " ".join(said)
