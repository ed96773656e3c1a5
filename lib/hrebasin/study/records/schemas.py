"""What each stage writes: its variables and their dimensions; of questions, their modules say it."""

from .. import questions

# stage -> variable -> dimensions
SCHEMAS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "train_loss": ("model", "epoch"),
        "train_accuracy": ("model", "epoch"),
        "test_loss": ("model",),
        "test_accuracy": ("model",),
        "seconds": ("model",),
    },
    "merge": {
        "train_loss": ("model",),
        "train_accuracy": ("model",),
        "test_loss": ("model",),
        "test_accuracy": ("model",),
        "pairwise_distance": ("model",),
        "sweeps_done": ("model",),
        "converged": ("model",),
        "seconds": ("model",),
    },
    "attack": {
        "robust_accuracy": ("model", "attack", "epsilon"),
        "correct": ("model", "image"),
        "perturbation_norm": ("model", "norm", "image"),
        "success": ("model", "norm", "image"),
        "repredicted": ("model", "norm"),
        "noise_accuracy": ("model", "noise", "magnitude", "draw"),
    },
    "regularity": {
        "weight_norm": ("model", "layer"),
        "lipschitz": ("model", "bound"),
        "local_lipschitz": ("model", "radius", "image"),
        "gradient_norm": ("model", "image"),
        "margin": ("model", "image"),
        "children_cosine": ("model", "layer"),
        "predicted_norm": ("model", "layer"),
    },
    "ablations": {
        "loss": ("pair", "alignment", "split", "lambda"),
        "accuracy": ("pair", "alignment", "split", "lambda"),
        "loss_barrier": ("pair", "alignment", "split"),
        "accuracy_barrier": ("pair", "alignment", "split"),
        "choice_accuracy": ("pair", "permuted", "order"),
    },
    "answers": {
        "effect": ("row",),
        "low": ("row",),
        "high": ("row",),
        "n": ("row",),
        "p": ("row",),
    },
    "benchmarks": {
        "seconds": ("row", "side", "repeat"),
        "ratio": ("row",),
        "ratio_low": ("row",),
        "ratio_high": ("row",),
        "difference": ("row",),
        "goal": ("row",),
        "rate": ("row",),
        "share": ("row",),
        "scaling_seconds": ("size", "stage", "n_models"),
        "scaling_memory": ("size", "stage", "n_models"),
        "slope_seconds": ("size", "stage"),
        "slope_memory": ("size", "stage"),
        "bend": ("size", "stage"),
    },
    "ledger": {
        "verdict": ("claim",),
        "effect": ("claim",),
        "low": ("claim",),
        "high": ("claim",),
        "n": ("claim",),
        "p": ("claim",),
        "p_holm": ("claim",),
    },
}


def schema(stage: str) -> dict[str, tuple[str, ...]]:
    """Variable -> dimensions of the data set of a stage."""
    if stage in questions.ALL:
        return questions.load(stage).SCHEMA  # loaded only now: it measures and draws too
    if stage not in SCHEMAS:
        raise ValueError(f"unknown stage {stage!r}; known are {[*SCHEMAS, *questions.ALL]}")
    return SCHEMAS[stage]
