"""Questions that the paper leaves open, answered over groups: effects with intervals, n, and a sentence.

There are no verdicts: nothing was claimed, and all comparisons are exploratory.
"""

import re
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.stats import ConstantInputWarning

from .. import records
from ..groups import NotMeasuredError, Results
from ..records import columns
from ..statistics import Test, Undefined, chance, rounded
from . import OPEN, load

# variable -> long name, units
VARIABLES = {
    "comparison": ("what is compared", "1"),
    "effect": ("mean over groups", "see effect_units"),
    "low": ("lower end of the 95 % interval of the mean", "see effect_units"),
    "high": ("upper end of the 95 % interval of the mean", "see effect_units"),
    "n": ("groups", "groups"),
    "images": ("whether images were resampled beside groups: 1 or 0", "1"),
    "p": ("two-sided p value that the mean is zero, exploratory: not adjusted", "1"),
    "effect_units": ("units of the effect and its interval", "1"),
}

HEAD = ("| comparison | effect (95 % interval) | n | p |", "|---|---|---|---|")  # of tables
NO_NUMBER = re.compile(r"-?\b(nan|inf)\b( (%|points|times|nat))?")  # as Python writes it


def answer(results: Results) -> xr.Dataset:
    """All questions whose data sets are there.

    Returns:
        The variables of `VARIABLES` over ``row``, with the coordinate ``question``; ``sentence`` over
        ``asked``, with the question's ``title``.
    """
    rows, asked = [], []
    for name, stage in ((f"Q{number}", stage) for number, stage in enumerate(OPEN, start=1) if stage in results):
        tests, sentence = _answered(stage, results[stage])
        asked.append({"asked": name, "title": load(stage).TITLE, "sentence": sentence})
        rows += [test.row() | {"question": name, "effect_units": test.units} for test in tests]
    variables = columns(rows, "row", VARIABLES)
    variables |= columns(asked, "asked", {"sentence": ("answer", "1"), "title": ("question", "1")})
    coords = columns(asked, "asked", {"asked": ("question", "1")})
    return xr.Dataset(variables, coords=coords | columns(rows, "row", {"question": ("question", "1")}))


def asked_before(folder: Path, results: Results) -> dict[str, xr.Dataset]:
    """Data sets of other questions in a run's folder of results, of the same networks, groups and images.

    Args:
        folder: of data sets.
        results: of the questions that were asked now.
    """
    found, now = {}, next((data for stage, data in results.items() if not OPEN[stage].trains), None)
    for stage in [stage for stage in OPEN if now is not None and stage not in results]:
        if (path := folder / f"{stage}.nc").is_file():
            data = records.read(path, stage=stage)
            told = ("data_digest",) if OPEN[stage].trains else ("data_digest", "networks")
            groups, own = (set(each.group.values.tolist()) for each in (now, data))
            alike = all(data.attrs.get(name) == now.attrs.get(name) for name in told)
            if alike and (own <= groups if OPEN[stage].trains else own == groups):
                found[stage] = data
    return found


def _answered(stage: str, data: xr.Dataset) -> tuple[list[Test], str]:
    """A question's comparisons and its answer; what its data do not define costs no other question its own."""
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        try:
            tests, sentence = load(stage).answer(data)
            return tests, NO_NUMBER.sub("(not defined)", sentence)
        except NotMeasuredError as error:
            return [Undefined(f"all of {stage}.nc", "1")], f"not defined: {error.args[0]}"


def sentences(found: xr.Dataset) -> list[tuple[str, str, str]]:
    """Each question that was asked: its title, its answer, and how many groups stand behind it, in words."""
    told = []
    for name, title, sentence in zip(found.asked.values, found.title.values, found.sentence.values, strict=True):
        n = found.n.values[found.question.values == name]
        groups = f"n = {n.max()} trees" if n.max() > 1 else "n = 1 tree, which decides nothing"
        text = str(sentence).removesuffix(".")
        told.append((str(title), f"{text[0].upper()}{text[1:]}.", groups))
    return told


def comparisons(found: xr.Dataset, name: str) -> list[dict[str, str]]:
    """All comparisons of a question such as "Q1", as texts: what is compared, the effect with its interval, n, p."""
    here, told = found.question.values == name, []
    shown = ("comparison", "effect_units", "n", "p", "effect", "low", "high")
    rows = zip(*(found[key].values[here].tolist() for key in shown), strict=True)
    for comparison, units, n, p, *numbers in rows:
        effect, *ends = rounded(*numbers)
        unit = "" if units == "1" else f" {units}"
        spread = f" ({' to '.join(ends)})" if np.isfinite(numbers[1]) else ""
        size = f"{effect}{unit}{spread}" if np.isfinite(numbers[0]) else "not defined"
        told.append({"comparison": comparison, "effect": size, "n": str(n), "p": chance(p)})
    return told


def table(found: xr.Dataset) -> str:
    """All comparisons as a Markdown table a question."""
    parts = ["All comparisons are exploratory; p values are not adjusted.", ""]
    for name, (title, sentence, _) in zip(found.asked.values, sentences(found), strict=True):
        parts += [f"## {title}", "", sentence, "", *HEAD]
        parts += [f"| {' | '.join(row.values())} |" for row in comparisons(found, name)]
        parts.append("")
    return "\n".join(parts)
