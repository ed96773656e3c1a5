"""Questions that the paper leaves open, answered over groups: effects with intervals, n, and a sentence.

There are no verdicts: nothing was claimed.
"""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from ..groups import Results
from ..statistics import Test
from .merging_answers import mergers, recipes, repair
from .robustness_answers import controls, scale, strong

# variable -> long name, units
VARIABLES = {
    "comparison": ("what is compared", "1"),
    "effect": ("mean over groups", "see effect_units"),
    "low": ("lower end of the 95 % interval of the mean", "see effect_units"),
    "high": ("upper end of the 95 % interval of the mean", "see effect_units"),
    "n": ("groups", "groups"),
    "p": ("two-sided p value that the mean is zero, not adjusted", "1"),
    "effect_units": ("units of the effect and its interval", "1"),
}


Question = tuple[str, str, Callable[[xr.Dataset], tuple[list[Test], str]]]
QUESTIONS: dict[str, Question] = {
    "Q1": ("Robustness or lower accuracy?", "controls", controls),
    "Q2": ("Is the crossing an artefact of weak attacks?", "strong", strong),
    "Q3": ("MergeMany or tree?", "mergers", mergers),
    "Q4": ("Does the bound fall beyond scale?", "scale", scale),
    "Q5": ("Is it variance collapse?", "repair", repair),
    "Q6": ("Does the recipe decide?", "recipes", recipes),
}


def answer(results: Results) -> xr.Dataset:
    """All questions whose data sets are there.

    Args:
        results: data sets by stage.

    Returns:
        The variables of `VARIABLES` over ``row``, with the coordinate ``question``; ``sentence`` over
        ``asked``, with the question's ``title``.
    """
    rows, sentences = [], {}
    for name, (title, stage, function) in QUESTIONS.items():
        if stage not in results:
            continue
        tests, sentences[name] = function(results[stage])
        sentences[name] = (title, sentences[name])
        rows += [(name, test, *test.interval(name)) for test in tests]
    columns = {
        "comparison": [test.name for _, test, _, _ in rows],
        "effect": [test.effect for _, test, _, _ in rows],
        "low": [low for *_, low, _ in rows],
        "high": [high for *_, high in rows],
        "n": [test.n for _, test, _, _ in rows],
        "p": [test.p for _, test, _, _ in rows],
        "effect_units": [test.units for _, test, _, _ in rows],
    }
    variables = {name: _column("row", columns[name], *about) for name, about in VARIABLES.items()}
    variables["sentence"] = _column("asked", [text for _, text in sentences.values()], "answer", "1")
    variables["title"] = _column("asked", [title for title, _ in sentences.values()], "question", "1")
    coords = {
        "asked": _column("asked", list(sentences), "question", "1"),
        "question": _column("row", [name for name, *_ in rows], "question", "1"),
    }
    return xr.Dataset(variables, coords=coords)


def sentences(found: xr.Dataset) -> list[tuple[str, str, str]]:
    """Each question that was asked: its title, its answer, and how many groups stand behind it, in words."""
    told = []
    for name, title, sentence in zip(found.asked.values, found.title.values, found.sentence.values, strict=True):
        n = found.n.values[found.question.values == name]
        groups = f"n = {n.max()} groups" if n.max() > 1 else "n = 1 group, which decides nothing"
        told.append((str(title), f"{str(sentence)[0].upper()}{str(sentence)[1:]}.", groups))
    return told


def table(found: xr.Dataset) -> str:
    """All comparisons as a Markdown table a question."""
    parts = []
    for name, (title, sentence, _) in zip(found.asked.values, sentences(found), strict=True):
        rows = found.isel(row=(found.question == name).values)
        parts += [
            f"## {title}",
            "",
            sentence,
            "",
            "| comparison | effect (95 % interval) | n | p |",
            "|---|---|---|---|",
        ]
        for k in range(rows.sizes["row"]):
            one = {key: values.values for key, values in rows.isel(row=k).data_vars.items()}
            unit = "" if str(one["effect_units"]) == "1" else f" {one['effect_units']}"
            spread = f" ({one['low']:.3g} to {one['high']:.3g})" if np.isfinite(one["low"]) else ""
            p = f"{one['p']:.2g}" if np.isfinite(one["p"]) else "–"
            parts.append(f"| {one['comparison']} | {one['effect']:.3g}{unit}{spread} | {one['n']} | {p} |")
        parts.append("")
    return "\n".join(parts)


def _column(dim: str, values: list, long_name: str, units: str) -> tuple[str, np.ndarray, Mapping]:
    text = bool(values) and isinstance(values[0], str)
    return dim, np.array(values, dtype=object) if text else np.array(values), {"long_name": long_name, "units": units}
