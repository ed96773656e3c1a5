"""Rules of what reorders, joins, cuts and repeats axes."""

import math
from collections.abc import Sequence

import torch

from .axes import Axis, axis_size
from .calls import Call, Value, broadcast, rule
from .factors import Factors, concatenation, fixed


def reshape(factors: Factors, value: Value, shape: Sequence[int]) -> Value:
    """The axes after a change of shape that keeps the order of the numbers."""
    if 0 in shape:
        return Value(map(fixed, shape))
    old = [(axis, axis_size(axis)) for axis in value if axis_size(axis) != 1]
    new: dict[int, Axis] = {position: fixed(1) for position, size in enumerate(shape) if size == 1}
    wanted = [(position, size) for position, size in enumerate(shape) if size != 1]
    while old:
        (axis, have), (position, want) = old.pop(0), wanted.pop(0)
        axes, positions, sizes = [axis], [position], [want]
        while have != want:  # the fewest axes that hold the same numbers before and after
            if have < want:
                axis, size = old.pop(0)
                axes, have = [*axes, axis], have * size
            else:
                position, size = wanted.pop(0)
                positions, sizes, want = [*positions, position], [*sizes, size], want * size
        whole = factors.product(axes)
        new |= zip(positions, [whole] if len(sizes) == 1 else factors.factorise(whole, sizes), strict=True)
    return Value(new[position] for position in range(len(shape)))


@rule("view", "_unsafe_view", "reshape", "view_as", "reshape_as", "flatten", "ravel", "unflatten", "squeeze")
@rule("unsqueeze")
def reshaping(factors: Factors, call: Call):
    """The order of the numbers stays; their number does unless a view takes them apart into smaller ones."""
    same = math.prod(call.x.shape) == math.prod(call.shapes[0])
    return [reshape(factors, call.x, call.shapes[0])] if same else None


@rule("permute", "transpose", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "numpy_T", "mT", "adjoint")
def permuting(factors: Factors, call: Call):
    """Axes change places; torch itself tells how, on a tensor with a size of its own for every axis."""
    sizes = torch.empty(tuple(range(1, len(call.x) + 1)), device="meta")
    how = {name: value for name, value in call.args.items() if name != "self"}
    return [Value(call.x[size - 1] for size in call.target(sizes, **how).shape)]


@rule("cat", "concat", "concatenate")
def cat(factors: Factors, call: Call):
    """One axis becomes a concatenation, the others are tied."""
    tensors = [value for value in call.tensors if value.shape != (0,)] or call.tensors
    dim = call.dim % len(tensors[0])
    others = broadcast(factors, *(value.replace(dim, fixed(1)) for value in tensors))
    return [others.replace(dim, concatenation(value[dim] for value in tensors))]


@rule("stack")
def stack(factors: Factors, call: Call):
    """A new axis, in the order that was written."""
    together = broadcast(factors, *call.tensors)
    dim = call.dim % (len(together) + 1)
    return [Value((*together[:dim], fixed(len(call.tensors)), *together[dim:]))]


@rule("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes")
def splitting(factors: Factors, call: Call):
    """One axis is a concatenation of the pieces, unless they overlap."""
    sizes = [shape[call.axis] for shape in call.shapes]
    if sum(sizes) != axis_size(call.along):
        return None
    return [call.x.replace(call.axis, piece) for piece in factors.split(call.along, sizes)]


def cut(factors: Factors, axis: Axis, start: int, taken: int) -> Axis:
    """So many units of an axis: it is a concatenation of what is left out and what is taken."""
    return factors.split(axis, [start, taken, axis_size(axis) - start - taken])[1] if taken else fixed(0)


@rule("slice", "narrow")
def slicing(factors: Factors, call: Call):
    """Some units of one axis; with a step, all must stay."""
    if isinstance(call.start, Value):
        return None
    taken = call.shapes[0][call.axis]
    start, _, step = slice(call.start, None, call.step).indices(axis_size(call.along))  # starts may lie outside
    if step == 1 or taken < 2:
        return [call.x.replace(call.axis, cut(factors, call.along, start, taken))]
    factors.fix(call.along)
    return [call.x.replace(call.axis, fixed(taken))]


@rule("select")
def selecting(factors: Factors, call: Call):
    """One unit of an axis, which is gone."""
    cut(factors, call.along, call.args["index"] % axis_size(call.along), 1)
    return [call.x.replace(call.axis)]


@rule("unbind")
def unbinding(factors: Factors, call: Call):
    """The units of one axis are told apart."""
    factors.fix(call.along)
    return [call.x.replace(call.axis)] * len(call.shapes)


@rule("index_select")
def index_select(factors: Factors, call: Call):
    """The units of one axis are told apart."""
    factors.fix(call.along)
    return [call.x.replace(call.axis, *(call.args["index"] or [fixed(1)]))]


@rule("index")
def indexing(factors: Factors, call: Call):
    """Indexed axes must stay; those of the indices take their place, or the front where that is torn."""
    x, indices = call.x, call.indices
    positions = [position for position, index in enumerate(indices) if index is not None]
    chosen = broadcast(factors, *(indices[position] for position in positions))
    factors.fix(*(x[position] for position in positions))
    rest = [axis for position, axis in enumerate(x) if position not in positions]
    torn = positions != list(range(positions[0], positions[-1] + 1))
    before = 0 if torn else positions[0]
    out = Value((*rest[:before], *chosen, *rest[before:]))
    return [out] if out.shape == call.shapes[0] else None  # a mask of truth values takes several axes


@rule("expand", "expand_as", "broadcast_to")
def expanding(factors: Factors, call: Call):
    """Copies of one unit may change places."""
    shape = call.shapes[0]
    x = (*map(fixed, (1,) * (len(shape) - len(call.x))), *call.x)
    return [Value(axis if axis_size(axis) == size else factors.new(size) for axis, size in zip(x, shape, strict=True))]


@rule("repeat", "tile")
def repeating(factors: Factors, call: Call):
    """Copies may change places with one another."""
    shape = call.shapes[0]
    x = (*map(fixed, (1,) * (len(shape) - len(call.x))), *call.x)
    pairs = [(axis, size and size // axis_size(axis)) for axis, size in zip(x, shape, strict=True)]
    return [Value(axis if n == 1 else factors.product([factors.new(n), axis]) if n else fixed(0) for axis, n in pairs)]


@rule("repeat_interleave")
def repeating_units(factors: Factors, call: Call):
    """Copies of a unit lie side by side and may change places with one another."""
    if not isinstance(call.repeats, int) or call.dim is None:
        return None
    axis = call.x[call.axis]
    return [call.x.replace(call.axis, factors.product([axis, factors.new(call.repeats)]))]


@rule("full", "zeros", "ones", "empty", "new_full", "new_zeros", "new_ones", "new_empty")
@rule("full_like", "zeros_like", "ones_like", "empty_like", "scalar_tensor")
def constant(factors: Factors, call: Call):
    """All numbers are the same."""
    return [Value(map(factors.new, call.shapes[0]))]


@rule("pad", "constant_pad_nd")
def padding(factors: Factors, call: Call):
    """What is padded with a constant is a segment, what is cropped too; with its own numbers, its units must stay."""
    axes = list(call.x)
    for number, (before, after) in enumerate(zip(call.args["pad"][::2], call.args["pad"][1::2], strict=True), start=1):
        axis = axes[-number]
        if (before, after) == (0, 0):
            continue
        if call.args.get("mode", "constant") != "constant":
            factors.fix(axis)
            axes[-number] = fixed(call.shapes[0][-number])
        else:
            left = axis_size(axis) + min(before, 0) + min(after, 0)
            axis = cut(factors, axis, max(-before, 0), left)
            axes[-number] = concatenation([fixed(max(before, 0)), axis, fixed(max(after, 0))])
    return [Value(axes)]


@rule("roll", "flip")
def moving(factors: Factors, call: Call):
    """The units of the axes that are named have an order."""
    factors.fix(*([call.x[dim] for dim in call.dims] if call.x and call.dims else call.x))
    return [call.x]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(factors: Factors, call: Call):
    """Groups x units become units x groups."""
    channels = axis_size(call.x[1])
    groups, units = factors.factorise(call.x[1], [call.groups, channels // call.groups])
    return [call.x.replace(1, factors.product([units, groups]))]


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(factors: Factors, call: Call):
    """Pixels within a square lie in the channels, the minor part of these."""
    channel = len(call.x) - 3
    inside = (call.upscale_factor or call.downscale_factor) ** 2
    factors.fix(*call.x[channel + 1 :])
    out = call.shapes[0]
    if call.name == "pixel_shuffle":
        channels, pixels = factors.factorise(call.x[channel], [out[channel], inside])
        factors.fix(pixels)
    else:
        channels = factors.product([call.x[channel], fixed(inside)])
    return [Value((*call.x[:channel], channels, *map(fixed, out[channel + 1 :])))]
