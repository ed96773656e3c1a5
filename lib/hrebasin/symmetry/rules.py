"""Rules of elementwise operations and of sums, and which rule an operation has."""

from collections.abc import Callable

import torch

from . import layer_rules, shape_rules  # noqa: F401 (they register their rules)
from .calls import RULES, Call, Rule, Value, broadcast, reduced, rule
from .factors import Factors, fixed


def find_rule(target: Callable | str) -> Rule | None:
    """The rule of what a node of a graph calls; an operation in place has the rule of the one that is not."""
    if not isinstance(target, torch._ops.OpOverload):
        return None
    namespace, _, name = target._schema.name.partition("::")
    if namespace != "aten" or any(argument.is_out for argument in target._schema.arguments):
        return None  # an extension's, whatever its name; or one that writes its result into another tensor
    plain = name if name in RULES else name.rstrip("_")
    if plain in RULES:
        return RULES[plain]
    packet = getattr(torch.ops.aten, plain, None)
    overloads = [target, *(getattr(packet, overload) for overload in (packet.overloads() if packet else ()))]
    if any(torch.Tag.nondeterministic_seeded in overload.tags for overload in overloads):
        return None
    return elementwise if any(torch.Tag.pointwise in overload.tags for overload in overloads) else None


# torch marks most operations of this kind itself; these it does not
@rule("where", "masked_fill", "copy", "fill", "zero", "hardswish", "log_sigmoid", "_weight_norm", "isclose")
@rule("__and__", "__or__", "__xor__", "divide", "multiply", "subtract", "absolute", "negative", "floor_divide")
@rule("clone", "contiguous", "to", "_to_copy", "detach", "detach_", "alias", "lift_fresh_copy", "float", "double")
def elementwise(factors: Factors, call: Call):
    """Every number of the output depends on one number of each input."""
    out = broadcast(factors, *call.operands)
    return [out] if out.shape == call.shapes[0] and len(call.shapes) == 1 else None


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "type_as")
def unchanged(factors: Factors, call: Call):
    """All units of an axis are treated alike, though together."""
    return [call.x]


@rule("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "rrelu")
def dropout(factors: Factors, call: Call):
    """Nothing is random, unless the network asks for it even in evaluation mode."""
    return None if call.train or call.training else [call.x]


@rule("mean", "sum", "amax", "amin", "prod", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm")
@rule("logsumexp", "all", "any", "nansum", "nanmean", "count_nonzero")
def reduction(factors: Factors, call: Call):
    """Sums and their like do not depend on the order."""
    return [reduced(call.x, call.dim, call.keepdim)] * len(call.shapes)


@rule("max", "min", "median", "nanmedian", "mode")
def extreme(factors: Factors, call: Call):
    """With a dimension, the extreme's place is told too: its units must stay where that is read."""
    if call.other is not None:
        return elementwise(factors, call)
    return told_by_place(factors, call) if 1 in call.used else reduction(factors, call)


@rule("argmax", "argmin")
def told_by_place(factors: Factors, call: Call):
    """The output holds places along an axis, so that its units must stay."""
    factors.fix(*(call.x if call.dim is None else [call.along]))
    return reduction(factors, call)


@rule("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "argsort", "topk")
def along(factors: Factors, call: Call):
    """The units of one axis have an order."""
    factors.fix(call.along)
    return [Value(call.x and call.x.replace(call.axis, fixed(shape[call.axis]))) for shape in call.shapes]


@rule("cosine_similarity")
def cosine_similarity(factors: Factors, call: Call):
    """A sum over one axis of a product."""
    return [reduced(broadcast(factors, call.x1, call.x2), call.dim, False)]
