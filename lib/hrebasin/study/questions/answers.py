"""Questions that the paper leaves open, answered over groups: effects with intervals, n, and a sentence.

There are no verdicts: nothing was claimed.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ..groups import Results
from . import OPEN, load

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


def answer(results: Results) -> xr.Dataset:
    """All questions whose data sets are there.

    Args:
        results: data sets by stage.

    Returns:
        The variables of `VARIABLES` over ``row``, with the coordinate ``question``; ``sentence`` over
        ``asked``, with the question's ``title``.
    """
    rows, sentences = [], {}
    for name, stage in ((f"Q{number}", stage) for number, stage in enumerate(OPEN, start=1)):
        if stage not in results:
            continue
        tests, sentence = load(stage).answer(results[stage])
        sentences[name] = (load(stage).TITLE, sentence)
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
