"""Which figure is drawn by what, from which data sets; free of heavy imports, so that a run starts at once."""

from collections.abc import Collection

# file name -> function that draws it, the stages whose data sets it takes
FIGURES = {
    "fig1_accuracy": ("plots.accuracy_by_merged", ("merge",)),
    "fig2_robust_accuracy": ("plots.robust_accuracy", ("attack",)),
    "fig3_weight_norm": ("plots.weight_norm", ("regularity",)),
    "fig4_lipschitz": ("plots.lipschitz", ("regularity",)),
    "fig5_barriers": ("plots.barriers", ("ablations",)),
    "fig6_permutation_choice": ("plots.permutation_choice", ("ablations",)),
    "fig7_noise": ("plots.noise", ("attack",)),
    "fig8_versions": ("plots.versions", ("versions",)),
    "fig9_controls": ("question_plots.controls", ("controls",)),
    "fig10_strong_attacks": ("question_plots.strong", ("strong",)),
    "fig11_mergers": ("question_plots.mergers", ("mergers",)),
    "fig12_scale": ("question_plots.scale", ("scale",)),
    "fig13_repair": ("question_plots.repair", ("repair",)),
    "fig14_recipes": ("question_plots.recipes", ("recipes",)),
}


def figure_files(folder: str, stages: Collection[str]) -> list[str]:
    """Files of all figures that the data sets of some stages suffice for."""
    drawn = [name for name, (_, needed) in FIGURES.items() if set(needed) <= set(stages)]
    return [f"{folder}/{name}.{ending}" for name in drawn for ending in ("pdf", "png", "md")]
