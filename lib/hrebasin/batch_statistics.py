"""Networks in training mode as far as batch norm goes: nothing else, such as dropout, draws random numbers."""

from dataclasses import fields

from torch import nn

from .architectures import NetworkArchitecture
from .networks import Architecture


class _ByBatch(NetworkArchitecture):
    """An architecture whose `logits` with ``training`` put batch norm alone into training mode."""

    def _template(self, training: bool) -> nn.Module:
        template = super()._template(training=False)
        for name in self.batch_norms:
            template.get_submodule(name).train(training)
        return template


def by_batch(architecture: Architecture | NetworkArchitecture) -> Architecture | NetworkArchitecture:
    """The same architecture, in whose ``logits(..., training=True)`` only batch norm is in training mode.

    It takes the statistics of the batch and updates its running ones; dropout passes all on, so that what is computed
    depends on no global random state and leaves it as it is.
    """
    if isinstance(architecture, Architecture):
        return architecture  # an MLP has neither
    return _ByBatch(**{each.name: getattr(architecture, each.name) for each in fields(architecture) if each.init})
