"""What the rules of operations work with: tensors as their axes, calls by their arguments' names, and the registry.

A rule takes the `Factors` and a `Call`, ties what the operation ties, and returns one `Value` for each output, or None
where it does not apply. Operations that treat all units of an axis alike leave it free; an axis whose units have an
order (pixels, positions, what a sort runs along) is fixed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .axes import Axis, axis_size
from .factors import Factors, fixed


class Value(tuple):
    """A tensor in the graph, as its axes."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(map(axis_size, self))

    def replace(self, axis: int, *new: Axis) -> "Value":
        """The same with other axes, or none, in the place of one."""
        return Value((*self[:axis], *new, *self[axis + 1 :]))


@dataclass(frozen=True)
class Call:
    """An operation in the graph.

    Attributes:
        target: the operation.
        args: all its arguments by the names of its schema, defaults filled in; tensors are `Value`.
        shapes: of its outputs.
        used: of several outputs, positions of those that the network reads.
        constants: tensors among the arguments whose numbers are all the same, and that nothing else reads.
    """

    target: torch._ops.OpOverload
    args: dict
    shapes: tuple[tuple[int, ...], ...]
    used: frozenset[int]
    constants: tuple["Value", ...] = ()

    def __getattr__(self, name: str):
        return self.args.get(name)

    @property
    def name(self) -> str:
        """``conv2d`` for ``aten::conv2d``."""
        return self.target._schema.name.partition("::")[2]

    @property
    def operands(self) -> list[Value]:
        """The arguments that are tensors."""
        return [value for value in self.args.values() if isinstance(value, Value)]

    @property
    def x(self) -> Value:
        """The first tensor."""
        return self.operands[0]

    @property
    def axis(self) -> int:
        """The dimension of `x` that ``dim`` names, counted from the front."""
        return self.args["dim"] % max(1, len(self.x))

    @property
    def along(self) -> Axis:
        """The axis of `x` that ``dim`` names."""
        return self.x[self.axis] if self.x else fixed(1)


Rule = Callable[[Factors, Call], Sequence[Value] | None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the operations of these names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def given(*values: Value | None) -> list[Value]:
    """Without the arguments that were left out."""
    return [value for value in values if value is not None]


def broadcast(factors: Factors, *values: Sequence[Axis]) -> Value:
    """The axes after broadcasting; those of more than one unit are tied."""
    axes: list[Axis] = []
    for position in range(max(map(len, values)), 0, -1):
        wide = [v[-position] for v in values if len(v) >= position and axis_size(v[-position]) != 1]
        for axis in wide[1:]:
            factors.tie(wide[0], axis)
        axes.append(wide[0] if wide else fixed(1))
    return Value(axes)


def reduced(value: Value, dims: int | Sequence[int] | None, keepdim: bool | None) -> Value:
    """The axes without those that are summed over; all are if none is named."""
    dims = [dims] if isinstance(dims, int) else dims
    gone = {dim % max(1, len(value)) for dim in dims} if dims else set(range(len(value)))
    return Value(fixed(1) if i in gone else axis for i, axis in enumerate(value) if keepdim or i not in gone)
