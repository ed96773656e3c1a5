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
WEIGHTS = {"train": "unmerged", "merge": "merged"}  # stage -> the part of the networks that it writes
PAPER = "06_paper"
# open questions -> the notebook that writes their data sets, asked of a run's networks when they are there
QUESTIONS = {
    "controls": "20_lower_accuracy",
    "strong": "21_strong_attacks",
    "mergers": "22_mergers",
    "scale": "23_scale",
    "repair": "24_repair",
    "recipes": "25_recipes",
}
ANSWERS = "29_answers"
TRAINING = ("train", "recipes")  # stages that train networks of their own
EXTRA = {"versions": "07_versions"} | QUESTIONS  # data sets that a run may have beside its stages, and their notebooks
ATTACKS = ("fgsm", "deepfool-linf")  # these decide; "deepfool-linf-clipped" is Foolbox's rule, reported beside
