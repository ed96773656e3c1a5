"""Rules of what has weights, of products, attention and pooling."""

import re

from .axes import axis_size
from .calls import Call, Value, broadcast, given, rule
from .factors import Factors, concatenation, fixed


@rule("linear")
def linear(factors: Factors, call: Call):
    """Inputs are summed over."""
    factors.tie(call.input[-1], call.weight[-1])
    out = Value(call.input[:-1] + call.weight[:-1])
    return [broadcast(factors, out, *given(call.bias))]


@rule("bilinear")
def bilinear(factors: Factors, call: Call):
    """Both inputs are summed over."""
    factors.tie(call.input1[-1], call.weight[1])
    factors.tie(call.input2[-1], call.weight[2])
    out = Value((*broadcast(factors, call.input1[:-1], call.input2[:-1]), call.weight[0]))
    return [broadcast(factors, out, *given(call.bias))]


@rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(factors: Factors, call: Call):
    """Channels are groups x units; pixels have an order."""
    x, weight, n_groups = call.input, call.weight, call.groups
    channel = len(x) - len(weight) + 1
    groups = factors.new(n_groups)
    if call.transposed or "transpose" in call.name:
        inside, outside = factors.new(axis_size(weight[0]) // n_groups), weight[1]
        factors.tie(weight[0], factors.product([groups, inside]))
    else:
        inside, outside = weight[1], factors.new(axis_size(weight[0]) // n_groups)
        factors.tie(weight[0], factors.product([groups, outside]))
    factors.tie(x[channel], factors.product([groups, inside]))
    factors.fix(*x[channel + 1 :], *weight[2:])
    out = factors.product([groups, outside])
    for bias in given(call.bias):
        factors.tie(bias[0], out)
    return [Value((*x[:channel], out, *map(fixed, call.shapes[0][channel + 1 :])))]


@rule("batch_norm", "instance_norm")
def channel_norm(factors: Factors, call: Call):
    """Every channel has numbers of its own."""
    for value in given(call.weight, call.bias, call.running_mean, call.running_var):
        factors.tie(call.input[1], value[0])
    return [call.input]


@rule("group_norm")
def group_norm(factors: Factors, call: Call):
    """Channels are groups x units, and those of a group share a mean."""
    channels, n_groups = call.input[1], call.num_groups
    factors.factorise(channels, [n_groups, axis_size(channels) // n_groups])
    for value in given(call.weight, call.bias):
        factors.tie(channels, value[0])
    return [call.input]


@rule("layer_norm", "rms_norm")
def layer_norm(factors: Factors, call: Call):
    """Normalised units share a mean."""
    return [broadcast(factors, call.input, *given(call.weight, call.bias))]


@rule("prelu")
def prelu(factors: Factors, call: Call):
    """One slope, or one a channel."""
    if call.weight.shape not in ((), (1,)):
        factors.tie(call.x[min(1, len(call.x) - 1)], call.weight[0])
    return [call.x]


@rule("glu")
def glu(factors: Factors, call: Call):
    """The second half opens and shuts the first."""
    half = axis_size(call.x[call.axis]) // 2
    first, second = factors.split(call.x[call.axis], [half, half])
    factors.tie(first, second)
    return [call.x.replace(call.axis, first)]


@rule("embedding")
def embedding(factors: Factors, call: Call):
    """Words are chosen by their place; their features are free."""
    factors.fix(call.weight[0])
    return [Value((*call.indices, call.weight[1]))]


def product(factors: Factors, x: Value, y: Value) -> Value:
    """The axes of a matrix product, the last of ``x`` and the last but one of ``y`` summed over."""
    factors.tie(x[-1], y[-2] if len(y) > 1 else y[-1])
    return Value((*broadcast(factors, x[:-2], y[:-2], ()), *x[-2:-1], *(y[-1:] if len(y) > 1 else ())))


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot")
def matmul(factors: Factors, call: Call):
    """A product of two."""
    return [product(factors, *call.operands)]


@rule("addmm", "baddbmm", "addmv")
def added_matmul(factors: Factors, call: Call):
    """A product added to a third."""
    third, x, y = call.operands
    return [broadcast(factors, third, product(factors, x, y))]


@rule("outer", "ger")
def outer(factors: Factors, call: Call):
    """Every number times every other."""
    x, y = call.operands
    return [Value(x + y)]


@rule("einsum")
def einsum(factors: Factors, call: Call):
    """Axes with one letter are one; letters that the result lacks are summed over."""
    if not re.fullmatch(r"[a-zA-Z,]+(->[a-zA-Z]*)?", call.equation.replace(" ", "")):
        return None
    inputs, arrow, output = call.equation.replace(" ", "").partition("->")
    axes = {}
    for letters, value in zip(inputs.split(","), call.tensors, strict=True):
        for letter, axis in zip(letters, value, strict=True):
            if axis_size(axis) != 1:
                factors.tie(axes.setdefault(letter, axis), axis)
    if not arrow:
        output = "".join(sorted(letter for letter in set(inputs) - {","} if inputs.count(letter) == 1))
    return [Value(axes.get(letter, fixed(1)) for letter in output)]


@rule("scaled_dot_product_attention")
def attention(factors: Factors, call: Call):
    """Units of queries meet those of keys, places of keys those of values, heads are free."""
    query, key, value = call.query, call.key, call.value
    if call.enable_gqa or call.dropout_p:
        return None
    factors.tie(query[-1], key[-1])
    factors.tie(key[-2], value[-2])
    heads = broadcast(factors, query[:-2], key[:-2], value[:-2], ())
    scores = Value((*heads, query[-2], key[-2]))
    if call.is_causal:
        factors.fix(query[-2], key[-2])
    broadcast(factors, scores, *given(call.attn_mask))
    return [Value((*heads, query[-2], value[-1]))]


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(factors: Factors, call: Call):
    """The units of a layer and direction change places in all gates, and in the states that they keep."""
    if call.input is None or call.train:  # sequences of several lengths, or dropout
        return None
    gates, batch = {"lstm": 4, "gru": 3}.get(call.name, 1), call.input[0 if call.batch_first else 1]
    factors.fix(call.input[1 if call.batch_first else 0])
    states = [call.hx] if isinstance(call.hx, Value) else list(call.hx)
    asked = [state for state in states if not any(state is one for one in call.constants)]  # else they are zeros
    for state in asked:
        factors.fix(state[0])
        factors.tie(state[1], batch)
    n_directions = 2 if call.bidirectional else 1
    n_each = len(call.params) // (call.num_layers * n_directions)
    inputs, kept, ends, parameters = call.input[-1], [], [], iter(call.params)
    for _ in range(call.num_layers):
        for _ in range(n_directions):
            weight_in, weight_state, *others = (next(parameters) for _ in range(n_each))
            units = factors.new(axis_size(weight_in[0]) // gates)
            projection = others.pop() if n_each % 2 else (units, units)  # of what the next step and layer see
            for parameter in (weight_in, weight_state, *others):
                factors.tie(parameter[0], factors.product([fixed(gates), units]))
            factors.tie(weight_in[1], inputs)
            factors.tie(weight_state[1], projection[0])
            factors.tie(projection[1], units)
            kept.append((projection[0], units))
        inputs = concatenation(shown for shown, _ in kept[-n_directions:])
    for number, state in enumerate(states):  # one tensor holds those of all layers
        for axes in kept:
            if number + 1 in call.used or any(state is one for one in asked):
                factors.tie(axes[number], state[-1])
        ends.append(Value((fixed(len(kept)), batch, kept[0][number])))
    return [Value((*call.input[:2], inputs)), *ends]


POOLS = ("avg_pool", "max_pool", "adaptive_avg_pool", "_adaptive_avg_pool", "adaptive_max_pool", "upsample_nearest")
POOLS += ("_upsample_nearest_exact", "reflection_pad", "replication_pad")
UPSAMPLINGS = ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")


@rule(*(f"{pool}{n}d" for pool in POOLS for n in (1, 2, 3)), "max_pool2d_with_indices", "max_pool3d_with_indices")
@rule(*(f"upsample_{kind}" for kind in UPSAMPLINGS), "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
def pooling(factors: Factors, call: Call):
    """The last axes are pixels; the others are free."""
    n_pixels = int(re.search(r"([123])d", call.name)[1])
    free, pixels = call.x[: len(call.x) - n_pixels], call.x[len(call.x) - n_pixels :]
    factors.fix(*pixels)
    return [Value((*free, *map(fixed, shape[len(free) :]))) for shape in call.shapes]
