"""One network taught to answer as another one, such as an ensemble, on images without labels (Hinton et al. 2015)."""

import torch
from torch.nn.functional import cross_entropy

from ..bank import Bank, check_finite
from ..batch_statistics import by_batch
from ..checks import check_inputs
from ..random_streams import Seed, generator
from .batch_norm import measure_batch_norm

EPOCHS = 20
BATCH = 100  # images
LEARNING_RATE = 1e-3  # of Adam


def distilled(
    student: Bank,
    teacher: Bank,
    pixels: torch.Tensor,
    *,
    seed: Seed = 0,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
) -> Bank:
    """The student after training on the teacher's probabilities, method ``distilled``.

    Args:
        student, teacher: banks of one network each, which take the same images; neither is changed.
        pixels: images (image, ...) without labels.
        seed: of the order of images.
        epochs: passes over them, in batches of `BATCH`, with Adam.
        learning_rate: of Adam.

    Raises:
        ValueError: banks of more than one network, images that do not fit, or weights that are not finite.
    """
    for role, bank in (("student", student), ("teacher", teacher)):
        if len(bank) != 1:
            raise ValueError(f"distilling takes one {role}, got {len(bank)}")
        check_inputs(bank.architecture, pixels)
        check_finite(bank, role)
    pixels = pixels.to(student.device)
    with torch.no_grad():
        targets = torch.cat([teacher(part)[0].softmax(-1) for part in pixels.split(BATCH)])
    return fitted(student, pixels, targets, seed=seed, epochs=epochs, learning_rate=learning_rate).relabel(
        method="distilled"
    )


def fitted(
    student: Bank, pixels: torch.Tensor, targets: torch.Tensor, *, seed: Seed, epochs: int, learning_rate: float
) -> Bank:
    """A bank of one network after training towards probabilities (image, class); other arguments as of `distilled`."""
    architecture = by_batch(student.architecture)
    parameters = {name: student.tensors[name].clone().requires_grad_(True) for name in architecture.parameters}
    buffers = {name: tensor.clone() for name, tensor in student.tensors.items() if name not in parameters}
    optimizer = torch.optim.Adam(parameters.values(), lr=learning_rate)
    for epoch in range(epochs):
        order = torch.randperm(len(pixels), generator=generator(f"distillation/{seed}/{epoch}"))
        for some in order.to(pixels.device).split(BATCH):
            if architecture.batch_norms and len(some) == 1:
                continue  # one image has no variance
            logits = architecture.logits(parameters | buffers, architecture.prepare(pixels[some]), training=True)[0]
            optimizer.zero_grad()
            cross_entropy(logits, targets[some]).backward()
            optimizer.step()
    tensors = {name: tensor.detach() for name, tensor in parameters.items()} | buffers
    return measure_batch_norm(Bank(student.architecture, tensors, student.labels), pixels)
