"""Questions that the paper leaves open: the list of them, and for each a module that holds everything else.

A module has the ``TITLE`` of its question; the ``SCHEMA`` of its data set, dimensions -> variables; ``measure``, which
its notebook calls; ``answer``, which gives comparisons over groups and a sentence; ``draw``, which gives its figure and
has its caption. Nothing heavy is imported here: the workflow starts with this list.
"""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import NamedTuple


class Question(NamedTuple):
    """Where the rest of a question is to be found.

    Attributes:
        notebook: that measures, and writes the data set.
        module: in this package.
        figure: name of its files; or of its table.
        trains: whether it trains networks of its own; others are asked of those of a run.
        reads: stages of a run whose data sets its notebook reads.
        neighbour: whether it also takes a merged network of another shard.
    """

    notebook: str
    module: str
    figure: str
    trains: bool = False
    reads: tuple[str, ...] = ()
    neighbour: bool = False


# data set -> question, in the order of the answers
OPEN: Mapping[str, Question] = {
    "controls": Question("20_families", "families", "fig9_controls"),
    "strong": Question("21_strong_attacks", "strong_attacks", "fig10_strong_attacks", neighbour=True),
    "mergers": Question("22_mergers", "ways_to_merge", "fig11_mergers"),
    "scale": Question("23_scale", "scale", "fig12_scale", reads=("merge", "regularity")),
    "repair": Question("24_repair", "variance_collapse", "fig13_repair"),
    "recipes": Question("25_recipes", "training_recipes", "fig14_recipes", trains=True),
}
# A comparison that has no title and no answer, and a table in place of a figure
ALL = {"versions": Question("07_versions", "image_versions", "table1_versions")} | OPEN


def load(stage: str) -> ModuleType:
    """The module of a question, by its data set."""
    return import_module(f"{__name__}.{ALL[stage].module}")
