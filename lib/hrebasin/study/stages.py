"""Names that the workflow and the library share, free of heavy imports so that a run starts at once."""

from . import questions

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
ANSWERS = "29_answers"
# open questions -> the notebook that writes their data sets, asked of a run's networks when they are there
QUESTIONS = {stage: question.notebook for stage, question in questions.OPEN.items()}
EXTRA = {stage: question.notebook for stage, question in questions.ALL.items()}  # data sets that a run may have besides
TRAINS_ITS_OWN = tuple(stage for stage, question in questions.OPEN.items() if question.trains)
READS = {stage: question.reads for stage, question in questions.OPEN.items()}  # data sets beside the weights
NEIGHBOURS = tuple(stage for stage, question in questions.OPEN.items() if question.neighbour)  # take another shard too
TRAINING = ("train", *TRAINS_ITS_OWN)  # stages that train networks
ATTACKS = ("fgsm", "deepfool-linf")  # these decide; "deepfool-linf-clipped" is Foolbox's rule, reported beside
