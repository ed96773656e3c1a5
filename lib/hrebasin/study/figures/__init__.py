"""Figures from data sets, and the list of them; nothing heavy is imported here: the workflow starts with this list."""

from collections.abc import Collection

from ..questions import OPEN

# file name -> the function that draws it and has its caption, the stages whose data sets it takes
FIGURES = {
    "fig1_accuracy": ("figures.paper:accuracy_by_merged", ("merge",)),
    "fig2_robust_accuracy": ("figures.paper:robust_accuracy", ("attack",)),
    "fig3_weight_norm": ("figures.regularity:weight_norm", ("regularity",)),
    "fig4_lipschitz": ("figures.regularity:lipschitz", ("regularity",)),
    "fig5_barriers": ("figures.paper:barriers", ("ablations",)),
    "fig7_noise": ("figures.paper:noise", ("attack",)),
} | {question.figure: (f"questions.{question.module}:draw", (stage,)) for stage, question in OPEN.items()}
# the same of tables, which are written as Markdown
TABLES = {"table1_versions": ("questions.image_versions:tabulate", ("versions",))}


def drawable(stages: Collection[str]) -> list[str]:
    """Names of all figures that the data sets of some stages suffice for."""
    return [name for name, (_, needed) in FIGURES.items() if set(needed) <= set(stages)]


def figure_files(folder: str, stages: Collection[str]) -> list[str]:
    """Files of all figures that the data sets of some stages suffice for."""
    return [f"{folder}/{name}.{ending}" for name in drawable(stages) for ending in ("pdf", "png", "md")]
