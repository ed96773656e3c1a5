"""Title and colour of every method, which its data sets carry for the figures; free of imports."""

# From Okabe and Ito, L1 darker: apart for colour-blind readers, and at least 3:1 on white
LOOKS: dict[str, tuple[str, str]] = {
    "unmerged": ("unmerged", "#000000"),
    "tree": ("tree", "#0072B2"),
    "merge-many": ("MergeMany", "#D55E00"),
    "naive": ("naive average", "#CC79A7"),
    "l1": ("L1", "#882255"),
    "l2": ("L2", "#009E73"),
    "merge-many-from-tree": ("MergeMany from the tree", "#9000F0"),
}
PAPER = ("unmerged", "tree", "merge-many", "naive", "l1", "l2")  # the paper's own methods
BUILT_IN = tuple(LOOKS)  # with weights in every run; `hrebasin.register` adds others
# Colours of methods that are registered without one, apart from all others for colour-blind readers too
SPARE = ("#D80048", "#A89048", "#F018D8")
# Methods that a run merges only where its setting lists them; those that share a panel of their figure are apart too
RIVALS: dict[str, tuple[str, str]] = {
    "star": ("star", "#604800"),
    "fold": ("sequential fold", "#C80020"),
    "tree-random": ("tree, random pairs", "#3C9CDC"),
    "tree-nearest": ("tree, nearest pairs", "#00484E"),
    "cycle-consistent": ("C2M3", "#00A860"),
    "activations": ("tree, by activations", "#C04868"),
    "correlations": ("tree, by correlations", "#480000"),
    "ot-fusion": ("OT fusion", "#304830"),
    "straight-through": ("tree, straight-through", "#C060F0"),
}
ENSEMBLE = ("ensemble", "#24007E")  # no method that merges: the reference from above
