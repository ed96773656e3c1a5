"""Which figure is drawn from which data sets; free of heavy imports, so that a run starts at once."""

from collections.abc import Collection

# figure -> the stages whose data sets it is drawn from
FIGURES = {
    "fig1_accuracy": ("merge",),
    "fig2_robust_accuracy": ("attack",),
    "fig3_weight_norm": ("regularity",),
    "fig4_lipschitz": ("regularity",),
    "fig5_barriers": ("ablations",),
    "fig6_permutation_choice": ("ablations",),
    "fig7_noise": ("attack",),
    "fig8_versions": ("versions",),
    "fig9_controls": ("controls",),
    "fig10_strong_attacks": ("strong",),
    "fig11_mergers": ("mergers",),
    "fig12_scale": ("scale",),
    "fig13_repair": ("repair",),
    "fig14_recipes": ("recipes",),
}


def figure_files(folder: str, stages: Collection[str]) -> list[str]:
    """Files of all figures that the data sets of some stages suffice for."""
    drawn = [name for name, needed in FIGURES.items() if set(needed) <= set(stages)]
    return [f"{folder}/{name}.{ending}" for name in drawn for ending in ("pdf", "png", "md")]
