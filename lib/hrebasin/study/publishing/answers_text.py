"""The answers to open questions as the page tells them: what stands at once, and what unfolds."""

import re

import xarray as xr

from ..questions import OPEN, answers
from .places import Settings

WORDS = 4  # a first sentence of fewer, such as "Not resolved.", takes the next one with it
# begin sentences that belong to the one before
BELONGS = (
    "The difference is ", "Under PGD on the margin it is ", "Under FGSM the difference is ", "For networks merged ",
    "Under FGSM, networks ", "Under PGD on the margin, networks ", "Networks merged ",
)  # fmt: skip
SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z])")


def told_questions(asked: xr.Dataset) -> list[dict]:
    """Each question that was asked: stage, title, the answer's lead and rest, its groups in words unless the lead tells
    them, its comparisons."""
    told = []
    for name, (title, text, groups) in zip(asked.asked.values.tolist(), answers.sentences(asked), strict=True):
        lead, rest = split(text)
        told.append({
            "stage": list(OPEN)[int(name.removeprefix("Q")) - 1], "title": title, "lead": lead, "rest": rest,
            "groups": groups * (groups not in lead), "rows": answers.comparisons(asked, name),
        })  # fmt: skip
    return told


def by_question(settings: Settings) -> dict[str, dict[str, dict]]:
    """Stage of a question -> setting -> what `told_questions` tells of its answers; questions in their order."""
    found: dict[str, dict[str, dict]] = {stage: {} for stage in OPEN}
    for name, each in settings.items():
        for one in () if each.answers is None else told_questions(each.answers):
            found[one["stage"]][name] = one
    return {stage: answered for stage, answered in found.items() if answered}


def split(text: str) -> tuple[str, str]:
    """The first sentence, with the next where it is a word or two or where the next tells its difference, and the rest.

    >>> split("No. Shorter weights do as much. The rest is noise.")
    ('No. Shorter weights do as much.', 'The rest is noise.')
    """
    first, *more = SENTENCE_END.split(text)
    if more and len(first.split()) < WORDS:
        first = f"{first} {more.pop(0)}"
    while more and more[0].startswith(BELONGS):
        first = f"{first} {more.pop(0)}"
    return first, " ".join(more)
