"""How networks are trained."""

import math
from dataclasses import dataclass

OPTIMIZERS = ("adam", "sgd")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """How networks are trained; cosine decay of the learning rate to 0 over all steps.

    Args:
        optimizer: ``"adam"`` or ``"sgd"`` (with ``momentum``).
        learning_rate: at the start.
        batch_size: images a step; the last batch of an epoch may be smaller.
        epochs: passes over the training images.
        weight_decay: the optimizer's own (coupled, as in torch's Adam and SGD).
        l1, l2: strengths of the penalties ``l1 * sum |theta|`` and ``l2 * sum theta**2`` over all parameters,
            added to the mean cross-entropy.
        crop_padding: pixels of zero padding before a random crop; 0: no crop.
        flip: random horizontal flip.
        precision: of products during training; weights and moments stay float32.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    batch_size: int = 512
    epochs: int = 25
    weight_decay: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    crop_padding: int = 0
    flip: bool = False
    precision: str = "float32"

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {OPTIMIZERS}, got {self.optimizer!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {self.precision!r}")
        for name in ("batch_size", "epochs", "crop_padding"):
            if type(getattr(self, name)) is not int:
                raise ValueError(f"{name} must be int, got {getattr(self, name)!r}")
        for name in ("learning_rate", "batch_size", "epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("momentum", "weight_decay", "l1", "l2", "crop_padding"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("learning_rate", "momentum", "weight_decay", "l1", "l2"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}")
        if self.l1 and self.l2:
            raise ValueError(f"a recipe has one penalty, l1 or l2, got l1={self.l1} and l2={self.l2}")
