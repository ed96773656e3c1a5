"""What each stage writes: its variables and their dimensions; of questions, their modules say it."""

from .. import questions

# stage -> dimensions -> variables over them; others may be there, such as those that data sets published before lack:
# of attack ``robust`` (model attack epsilon image), ``correct_draws`` (model noise magnitude image) and
# ``zero_gradients`` (model)
SCHEMAS = {
    "train": {"model epoch": "train_loss train_accuracy", "model": "test_loss test_accuracy seconds"},
    "merge": {
        "model": "train_loss train_accuracy test_loss test_accuracy pairwise_distance sweeps_done converged seconds"
    },
    "attack": {
        "model attack epsilon": "robust_accuracy",
        "model image": "correct",
        "model norm image": "perturbation_norm success",
        "model norm": "repredicted",
        "model noise magnitude draw": "noise_accuracy",
    },
    "regularity": {
        "model layer": "weight_norm children_cosine predicted_norm",
        "model bound": "lipschitz",
        "model radius image": "local_lipschitz",
        "model image": "gradient_norm margin",
    },
    "ablations": {
        "pair alignment split lambda": "loss accuracy",
        "pair alignment split": "loss_barrier accuracy_barrier",
        "pair permuted order": "choice_accuracy",
    },
    "answers": {"row": "effect low high n p"},
    "benchmarks": {
        "row side repeat": "seconds",
        "row": "ratio ratio_low ratio_high difference goal rate share",
        "size stage n_models": "scaling_seconds scaling_memory",
        "size stage": "slope_seconds slope_memory bend",
    },
    "ledger": {"part": "verdict effect low high n images p p_holm p_sign_flip"},
}


def schema(stage: str) -> dict[str, tuple[str, ...]]:
    """Variable -> dimensions of the data set of a stage."""
    if stage not in (known := [*SCHEMAS, *questions.ALL]):
        raise ValueError(f"unknown stage {stage!r}; known are {known}")
    # of a question loaded only now: its module measures and draws too
    over = SCHEMAS[stage] if stage in SCHEMAS else questions.load(stage).SCHEMA
    return {name: tuple(dims.split()) for dims, names in over.items() for name in names.split()}
