# The whole paper as a workflow: papermill runs one notebook per rule, groups of networks are its shards.
#
#   make paper [SETTING=sample|augmented|plain|paper|...] [DATASET=...] [DEVICE=...] [GROUPS=...] [PRECISION=...] [EXECUTOR=slurm]
#
# or, with Snakemake's own options (executors, dry-run, ...): snakemake --config setting=sample

from functools import cache

from hrebasin.study.figures import figure_files
from hrebasin.study.stages import ANSWERS, NEIGHBOURS, NOTEBOOKS, PAPER, QUESTIONS, READS, STAGES, TRAINS_ITS_OWN
from hrebasin.study.running.plan import Plan

plan = Plan.from_config(config)
shards = list(plan.shards)
run = plan.run
code = cache(plan.code)  # of one notebook for thousands of jobs
# Functions, since on a cluster there is no number of all cores: there the executor's profile sets threads.
all_cores = lambda wildcards: workflow.cores
# Trees are trained side by side, each with its share: threads in one process wait for one another in Python.
share_of_cores = lambda wildcards: -(-workflow.cores // plan.trees_at_once)
# Measurements run side by side: half of their time is single-threaded.
half_the_cores = lambda wildcards: max(1, workflow.cores // 2)
# More threads than these in one process wait for one another in Python.
few_cores = lambda wildcards: min(4, workflow.cores)


wildcard_constraints:
    shard=r"\d\d\d+",


localrules:
    all,


rule all:
    input:
        f"{run}/index.html",


rule train:
    output:
        weights=f"{run}/weights/unmerged-{{shard}}.safetensors",
        record=f"{run}/train/shard-{{shard}}.nc",
        notebook=f"{run}/notebooks/01_train-{{shard}}.ipynb",
    threads: share_of_cores
    resources:
        gpu=plan.gpus,
    params:
        values=lambda wildcards: plan.parameters(NOTEBOOKS["train"], int(wildcards.shard)),
        images=lambda wildcards: plan.images,
        code=lambda wildcards: code(NOTEBOOKS["train"]),
    message:
        "01_train: networks of shard {wildcards.shard}"
    shell:
        plan.shell(NOTEBOOKS["train"], images=True)


rule merge:
    input:
        rules.train.output.weights,
    output:
        weights=f"{run}/weights/merged-{{shard}}.safetensors",
        record=f"{run}/merge/shard-{{shard}}.nc",
        notebook=f"{run}/notebooks/02_merge-{{shard}}.ipynb",
    priority: 1  # whole groups before further ones: results come early
    threads: few_cores
    resources:
        gpu=plan.gpus,
    params:
        values=lambda wildcards: plan.parameters(NOTEBOOKS["merge"], int(wildcards.shard)),
        code=lambda wildcards: code(NOTEBOOKS["merge"]),
    message:
        "02_merge: tree, MergeMany and averages of shard {wildcards.shard}"
    shell:
        plan.shell(NOTEBOOKS["merge"])


rule attack:
    input:
        rules.train.output.weights,
        rules.merge.output.weights,
    output:
        record=f"{run}/attack/shard-{{shard}}.nc",
        notebook=f"{run}/notebooks/03_attack-{{shard}}.ipynb",
    priority: 1  # whole groups before further ones: results come early
    threads: half_the_cores
    resources:
        gpu=plan.gpus,
    params:
        values=lambda wildcards: plan.parameters(NOTEBOOKS["attack"], int(wildcards.shard)),
        code=lambda wildcards: code(NOTEBOOKS["attack"]),
    message:
        "03_attack: FGSM, DeepFool and noise on shard {wildcards.shard}"
    shell:
        plan.shell(NOTEBOOKS["attack"])


rule regularity:
    input:
        rules.train.output.weights,
        rules.merge.output.weights,
    output:
        record=f"{run}/regularity/shard-{{shard}}.nc",
        notebook=f"{run}/notebooks/04_regularity-{{shard}}.ipynb",
    priority: 1  # whole groups before further ones: results come early
    threads: half_the_cores
    resources:
        gpu=plan.gpus,
    params:
        values=lambda wildcards: plan.parameters(NOTEBOOKS["regularity"], int(wildcards.shard)),
        code=lambda wildcards: code(NOTEBOOKS["regularity"]),
    message:
        "04_regularity: norms and Lipschitz bounds of shard {wildcards.shard}"
    shell:
        plan.shell(NOTEBOOKS["regularity"])


rule ablations:
    input:
        rules.train.output.weights,
    output:
        record=f"{run}/ablations/shard-{{shard}}.nc",
        notebook=f"{run}/notebooks/05_ablations-{{shard}}.ipynb",
    priority: 1  # whole groups before further ones: results come early
    threads: half_the_cores
    resources:
        gpu=plan.gpus,
    params:
        values=lambda wildcards: plan.parameters(NOTEBOOKS["ablations"], int(wildcards.shard)),
        code=lambda wildcards: code(NOTEBOOKS["ablations"]),
    message:
        "05_ablations: barriers and the choice of permutation on shard {wildcards.shard}"
    shell:
        plan.shell(NOTEBOOKS["ablations"])


rule paper:
    input:
        expand(f"{run}/{{stage}}/shard-{{shard:03d}}.nc", stage=STAGES, shard=shards),
    output:
        page=f"{run}/index.html",
        results=expand(f"{run}/results/{{stage}}.nc", stage=(*STAGES, "ledger")),
        figures=figure_files(f"{run}/figures", STAGES),
        notebook=f"{run}/notebooks/06_paper.ipynb",
    threads: all_cores
    resources:
        gpu=0,
    params:
        values=lambda wildcards: plan.parameters(PAPER, None),
        code=lambda wildcards: code(PAPER),
    message:
        "06_paper: figures, claims and the page"
    shell:
        plan.shell(PAPER)


def question_inputs(question):
    """Files that a question is asked of."""
    if question in TRAINS_ITS_OWN:
        return []
    weights = [rules.train.output.weights, rules.merge.output.weights]
    return weights + [f"{run}/{stage}/shard-{{shard}}.nc" for stage in READS.get(question, ())]


def neighbour_inputs(question, shard):
    """Merged networks of another shard, where a question takes one."""
    neighbour = plan.neighbour(shard) if question in NEIGHBOURS else -1
    return [rules.merge.output.weights.replace("{shard}", f"{neighbour:03d}")] if neighbour >= 0 else []


# Open questions, asked of networks that are there: make questions
for question, name in QUESTIONS.items():

    rule:
        name:
            question
        input:
            question_inputs(question),
            lambda wildcards, question=question: neighbour_inputs(question, int(wildcards.shard)),
        output:
            record=f"{run}/{question}/shard-{{shard}}.nc",
            notebook=f"{run}/notebooks/{name}-{{shard}}.ipynb",
        threads: all_cores if question in TRAINS_ITS_OWN else half_the_cores
        resources:
            gpu=plan.gpus,
        params:
            notebook=name,
            images=lambda wildcards, question=question: plan.images if question in TRAINS_ITS_OWN else "",
            values=lambda wildcards, name=name: plan.parameters(name, int(wildcards.shard)),
            code=lambda wildcards, name=name: code(name),
        message:
            f"{name}: shard {{wildcards.shard}}"
        shell:
            plan.shell("{params.notebook}", images=True)  # not the name itself: Snakemake looks it up when the loop is over


rule answers:
    input:
        [f"{run}/{question}/shard-{shard:03d}.nc" for question in plan.questions for shard in plan.asked(question)],
    output:
        results=expand(f"{run}/results/{{question}}.nc", question=(*plan.questions, "answers")),
        figures=figure_files(f"{run}/figures", plan.questions),
        notebook=f"{run}/notebooks/{ANSWERS}.ipynb",
    threads: all_cores
    resources:
        gpu=0,
    params:
        values=lambda wildcards: plan.parameters(ANSWERS, None),
        code=lambda wildcards: code(ANSWERS),
    message:
        "29_answers: open questions over all groups"
    shell:
        plan.shell(ANSWERS)
