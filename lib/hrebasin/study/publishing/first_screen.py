"""The answer in plain sentences, for all settings together: what a reader sees first."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from ...merging.looks import RIVALS
from ..figures.style import STOPPED as STOPPED_EARLY
from ..groups import PERCENT, large
from ..questions.wording import listed
from ..statistics import rounded

SURVIVES_NOT = "is not significant once corrected for the number of tests"
INTERVALS = "95 % intervals in brackets"


class Saying(NamedTuple):
    """How the answer tells a part of a claim.

    Attributes:
        subject: of the sentence.
        holds, fails: what follows where the part is reproduced, and where it is contradicted.
        asked: the part as a question after "whether".
        sized: how sizes follow.
        named: whether each size says what is compared.
        size: the part whose effect is told; by default the same.
    """

    subject: str
    holds: str
    fails: str
    asked: str
    sized: str = ", by {}"
    size: str = ""
    named: bool = False


SAYINGS = {
    "C4a": Saying(
        "Merging", "costs accuracy at every stage", "does not cost accuracy at every stage",
        "merging costs accuracy at every stage", "; the first merge costs {}", "C11",
    ),
    "C5b fgsm": Saying(
        "Under strong attack (FGSM, pixel changes of 0.015 to 0.020), fully merged networks are",
        "more accurate than unmerged ones", "less accurate than unmerged ones", "merging helps under strong attack",
    ),
    "C5a fgsm": Saying(
        "Under weak attack (up to 0.005), fully merged networks are", "less accurate", "more accurate",
        "merging costs accuracy under weak attack",
    ),
    "C5c fgsm": Saying(
        "At 0.010, where the paper finds all stages equally robust,", "they are equal within 1 point",
        "they are not", "all stages are equally robust at 0.010", ": for instance, {}", named=True,
    ),
    "C10a gaussian": Saying(
        "Accuracy under Gaussian noise", "rises", "falls", "accuracy under Gaussian noise rises",
    ),
    "C10b gaussian": Saying(
        "The share of accuracy that is kept under noise", "rises", "falls",
        "merged networks keep a larger share of their accuracy under noise",
    ),
    "C7a": Saying(
        "Weight norms", "fall at every stage", "do not fall at every stage", "weight norms fall at every stage", "",
    ),
    "C7b": Saying(
        "They", "fall linearly", "do not fall linearly", "they fall linearly",
        ": what the last merge takes off, divided by what the first takes off, is {}",
    ),
    "C8a": Saying(
        "Lipschitz bounds", "fall at every stage", "do not fall at every stage",
        "Lipschitz bounds fall at every stage", "",
    ),
    "C1a": Saying(
        "The tree of 4 networks is", "more accurate than converged MergeMany, Git Re-Basin's own method",
        "less accurate than converged MergeMany, Git Re-Basin's own method",
        "the tree of 4 networks is more accurate than converged MergeMany, Git Re-Basin's own method",
    ),
    "C1b": Saying(
        "Against MergeMany after one sweep, the tree of 4 is", "more accurate", "less accurate",
        "the tree of 4 is more accurate than MergeMany after one sweep",
    ),
}  # fmt: skip


def sentences(ledgers: Mapping[str, xr.Dataset]) -> list[tuple[str, str]]:
    """What holds and what does not, a sentence or two for a part that was measured, each with its claim.

    An interval tells of its own comparison alone, a verdict also of how many there are: a sentence says where they
    differ.

    Args:
        ledgers: by the name of the setting.
    """
    said, several = [], len(ledgers) > 1
    for name, saying in SAYINGS.items():
        found = {setting: part for setting, ledger in ledgers.items() if (part := _part(ledger, name)) is not None}
        verdicts = {setting: part.verdict.item() for setting, part in found.items()}
        sizes = {setting: _part(ledgers[setting], saying.size or name) for setting in found}
        corrected = {setting for setting, part in found.items() if _off_zero(part)}
        if text := _said(saying, verdicts, sizes, corrected, several):
            said.append((text, next(iter(found.values())).claim.item()))
    return said


def _said(saying: Saying, verdicts: Mapping, sizes: Mapping, corrected: set[str], several: bool) -> str:
    """A sentence by the verdicts and sizes of settings; nothing where none was given."""
    clauses, open_in = [], [setting for setting, given in verdicts.items() if given == "not resolved"]
    for verdict, words in (("reproduced", saying.holds), ("contradicted", saying.fails)):
        if not (names := [setting for setting, given in verdicts.items() if given == verdict]):
            continue
        told = [_size(sizes[name]) + f" in `{name}`" * several for name in names if _size(sizes[name])]
        if saying.named:
            told = [f"{_in_words(sizes[name])} {size}" for name, size in zip(names, told, strict=False)]
        if told and saying.sized:
            clauses.append(words + saying.sized.format(" and ".join(told)))
        else:  # all settings agree where none is named
            clauses.append(words + f" in {_named(names)}" * (several and len(names) < len(verdicts)))
    text = [f"{saying.subject} {', and '.join(clauses)}."] if clauses else []
    if open_in and clauses:
        for name in open_in:
            size = _size(sizes[name], signed=True) if saying.sized else ""
            what = f"the difference, {size}," if size else "this"
            text.append(f"In `{name}` {what} {SURVIVES_NOT if name in corrected else 'is not resolved'}.")
    elif open_in:
        told = [_open(name, sizes[name] if saying.sized else None, name in corrected, several) for name in open_in]
        where = f"In {_named(open_in)} it is" if several and not any(told) else "It is"
        text.append(f"{where} not resolved whether {saying.asked}{': ' * any(told)}{'; '.join(filter(None, told))}.")
    return " ".join(text)


def _in_words(part: xr.Dataset) -> str:
    """Which of two stages is ahead, of a comparison such as "FGSM, 0.010: stage 1 minus stage 4"."""
    stages = part.comparison.item().rpartition(": ")[2].split(" minus ")
    ahead, behind = stages if part.effect >= 0 else stages[::-1]
    return f"{_merged_from(ahead)} are ahead of {_merged_from(behind)} by"


def _merged_from(stage: str) -> str:
    number = int(stage.removeprefix("stage "))
    return f"networks merged from {2**number}" if number else "unmerged networks"


def _open(name: str, part: xr.Dataset | None, corrected: bool, several: bool) -> str:
    """The size of what is not resolved in a setting, and whether only the correction for many comparisons says so."""
    if not (size := _size(part, signed=True)):
        return ""
    why = f", which {SURVIVES_NOT}" * corrected
    return f"{size}{f' in `{name}`' * several}{why}"


def _named(names: list[str]) -> str:
    return listed([f"`{name}`" for name in names])


def _off_zero(part: xr.Dataset) -> bool:
    return bool(part.low > 0 or part.high < 0)


def _part(ledger: xr.Dataset, name: str) -> xr.Dataset | None:
    names = ledger.part.values.tolist()
    return ledger.isel(part=names.index(name)) if name in names else None


def _size(part: xr.Dataset | None, *, signed: bool = False) -> str:
    """An effect with its interval, without the sign of the effect unless ``signed``; empty where there is none."""
    if part is None or part.effect.isnull():
        return ""
    turn = -1 if part.effect < 0 and not signed else 1
    units = "" if part.units.item() == "1" else f" {part.units.item().replace('percentage points', 'points')}"
    ends = (part.low.item(), part.high.item())[::turn]
    size, *ends = rounded(*(turn * end for end in (part.effect.item(), *ends)))
    return f"{size}{units}" + ("" if part.low.isnull() else f" ({' to '.join(ends)})")


def untried(results: Mapping[str, xr.Dataset]) -> str:
    """Whether some way to merge withstands FGSM better than all early-stopped networks, which PGD has not tried."""
    if not {"mergers", "controls"} <= set(results) or "strong_accuracy" not in results["mergers"]:
        return ""
    merged, families = results["mergers"], results["controls"]
    size = int(merged.n_merged[(merged.method == "tree").values].max())
    rows = (merged.n_merged == size) & (merged.order == 0) & merged.method.isin(list(RIVALS))
    by_way = merged.strong_accuracy[rows.values].groupby("method").mean()
    robust = large(families.robust_accuracy.sel(attack="fgsm"))[(families.method == STOPPED_EARLY).values]
    most = float(robust.groupby("strength").mean().max()) if robust.size else np.inf
    ways = [str(way) for way, value in zip(by_way.method.values, by_way.values, strict=True) if value > most]
    if not ways:
        return ""
    names, setting = listed([f"`{way}`" for way in ways]), results["train"].attrs["setting"]
    return (
        f"But in `{setting}`, {size} networks merged by {names} classify up to {PERCENT * float(by_way.max()):.0f} % "
        f"correctly under strong FGSM, early-stopped networks of any epoch at most {PERCENT * most:.0f} %. We have not "
        "tried PGD on the former."
    )
