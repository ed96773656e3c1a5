"""Names that the workflow and the library share, free of heavy imports so that a run starts at once."""

# stage -> the notebook that writes its data sets, in the order of a run
NOTEBOOKS = {
    "train": "01_train",
    "merge": "02_merge",
    "attack": "03_attack",
    "regularity": "04_regularity",
    "ablations": "05_ablations",
}
STAGES = tuple(NOTEBOOKS)
EXTRA = {"versions": "07_versions"}  # data sets that a run may have beside its stages, and their notebooks
PAPER = "06_paper"
OPTIMIZERS = ("adam", "sgd")
PRECISIONS = ("float32", "bfloat16")
METHODS = ("unmerged", "tree", "merge-many", "naive", "l1", "l2")
