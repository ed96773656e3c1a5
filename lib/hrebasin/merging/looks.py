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
# Titles of methods that a run merges only where its setting lists them; figures tell them apart by marks
RIVALS = {
    "star": "star",
    "fold": "sequential fold",
    "tree-random": "tree, random pairs",
    "tree-nearest": "tree, nearest pairs",
    "cycle-consistent": "C2M3",
    "activations": "tree, by activations",
    "correlations": "tree, by correlations",
    "ot-fusion": "OT fusion",
    "straight-through": "tree, straight-through",
}
