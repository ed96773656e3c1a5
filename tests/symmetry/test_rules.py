"""Every rule alone, on networks of one or two layers: as many permutations as expected, and they are proven."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hrebasin.symmetry import derive_symmetry, prove_symmetry
from hrebasin.symmetry.calls import RULES
from hrebasin.symmetry.rules import find_rule
from hrebasin.symmetry.subject import Subject, arguments


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Layers and parameters by name, and a function of them and the input."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif isinstance(part, tuple):
                self.register_parameter(name, nn.Parameter(torch.zeros(part)))
            else:
                self.register_buffer(name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def between(function, *, width=12, out=None, **parts):
    """A function between two linear layers, (image, 5) -> (image, width) -> (image, out) -> (image, 3)."""
    return Network(
        lambda net, x: net.last(function(net, net.first(x))),
        first=nn.Linear(5, width),
        last=nn.Linear(out or width, 3),
        **parts,
    ), draw(4, 5)


def images(function, *, channels=12, out=None, side=6, **parts):
    """A function between two convolutions, images (image, 2, side, side)."""
    return Network(
        lambda net, x: net.last(function(net, net.first(x))),
        first=nn.Conv2d(2, channels, 3),
        last=nn.Conv2d(out or channels, 3, 1),
        **parts,
    ), draw(2, 2, side, side)


def tokens(function, *, width=12, **parts):
    """A function between two linear layers on 7 tokens, (sequence, 7, 5) -> (sequence, 7, width)."""
    return Network(
        lambda net, x: net.last(function(net, net.first(x))),
        first=nn.Linear(5, width),
        last=nn.Linear(width, 3),
        **parts,
    ), draw(2, 7, 5)


def heads(x, n=3):
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


def joined(x):
    return x.transpose(1, 2).flatten(2)


def branches(function, **parts):
    """A function of several layers, (image, 5) -> (image, 10), before a linear one."""
    return Network(lambda net, x: net.last(function(net, x)), last=nn.Linear(10, 3), **parts), draw(4, 5)


def written_in_place(net, x):
    padded = torch.zeros(4, 15)
    padded[:, :3] = x[:, :3]
    return torch.cat([padded, x], 1)


def without_gradients(net, x):
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        scaled = x * net.w
    return scaled + x


CASES = {  # a network with its example, and how many permutations it has
    "linear without bias": (between(lambda net, x: net.inner(x), inner=nn.Linear(12, 12, bias=False)), 2),
    "linear weight of one axis": (between(lambda net, x: x * F.linear(x, net.w)[:, None], w=(12,)), 1),
    "square layer on a residual stream": (between(lambda net, x: x + net.inner(x), inner=nn.Linear(12, 12)), 1),
    "in place": (between(lambda net, x: F.hardswish(x.relu_().add_(1).mul_(net.w), inplace=True), w=(12,)), 1),
    "activations": (
        between(lambda net, x: F.silu(F.gelu(x)) + F.hardswish(x) + F.logsigmoid(x) + F.mish(x) + F.rrelu(x)),
        1,
    ),
    "prelu": (between(lambda net, x: net.prelu(x), prelu=nn.PReLU(12)), 1),
    "prelu with one slope": (images(lambda net, x: net.prelu(x), prelu=nn.PReLU()), 1),
    "broadcasting": (images(lambda net, x: x * net.scale + net.shift, scale=(12, 1, 1), shift=(1, 12, 1, 1)), 1),
    "where": (between(lambda net, x: torch.where(x > net.w, x, 0.5).masked_fill(x < -1, 0.0), w=(12,)), 1),
    "convolution": (images(lambda net, x: net.inner(x), inner=nn.Conv2d(12, 8, 3, padding="same"), out=8), 2),
    "convolution in one dimension": (
        (nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU(), nn.Conv1d(6, 3, 1)), draw(2, 2, 8)),
        1,
    ),
    "convolution in three dimensions": (
        (nn.Sequential(nn.Conv3d(2, 6, 2), nn.ReLU(), nn.Conv3d(6, 3, 1)), draw(1, 2, 4, 4, 4)),
        1,
    ),
    "convolution of one image": ((nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 3, 1)), draw(2, 5, 5)), 1),
    # groups, units of a group going in, units of a group coming out
    "grouped convolution": (images(lambda net, x: net.inner(x), inner=nn.Conv2d(12, 18, 3, groups=3), out=18), 3),
    "depthwise convolution": (images(lambda net, x: net.inner(x), inner=nn.Conv2d(12, 12, 3, groups=12)), 1),
    "depthwise convolution with a multiplier": (
        images(lambda net, x: net.inner(x), inner=nn.Conv2d(12, 24, 3, groups=12), out=24),
        2,
    ),
    "transposed convolution": (images(lambda net, x: net.inner(x), inner=nn.ConvTranspose2d(12, 8, 3), out=8), 2),
    "grouped transposed convolution": (
        images(lambda net, x: net.inner(x), inner=nn.ConvTranspose2d(12, 18, 3, stride=2, groups=3), out=18),
        3,
    ),
    "batch norm": (images(lambda net, x: net.norm(x), norm=nn.BatchNorm2d(12)), 1),
    "batch norm of vectors": (between(lambda net, x: net.norm(x), norm=nn.BatchNorm1d(12)), 1),
    "batch norm without weights": (images(lambda net, x: net.norm(x), norm=nn.BatchNorm2d(12, affine=False)), 1),
    "batch norm of the batch": (
        images(lambda net, x: net.norm(x), norm=nn.BatchNorm2d(12, track_running_stats=False)),
        1,
    ),
    "instance norm": (images(lambda net, x: net.norm(x), norm=nn.InstanceNorm2d(12, affine=True)), 1),
    "group norm": (images(lambda net, x: net.norm(x), norm=nn.GroupNorm(3, 12)), 2),
    "group norm of one group": (images(lambda net, x: net.norm(x), norm=nn.GroupNorm(1, 12)), 1),
    "layer norm": (tokens(lambda net, x: net.norm(x), norm=nn.LayerNorm(12)), 1),
    "layer norm without weights": (tokens(lambda net, x: F.layer_norm(x, (12,))), 1),
    "layer norm of images": (images(lambda net, x: net.norm(x), norm=nn.LayerNorm([12, 4, 4])), 1),
    "root mean square norm": (tokens(lambda net, x: net.norm(x), norm=nn.RMSNorm(12)), 1),
    "local response norm": (images(lambda net, x: F.local_response_norm(x, 3)), 0),
    "cosine similarity": (between(lambda net, x: x * F.cosine_similarity(x, net.w)[:, None], w=(1, 12)), 1),
    "weight norm": (
        between(lambda net, x: net.inner(x), inner=nn.utils.parametrizations.weight_norm(nn.Linear(12, 8)), out=8),
        2,
    ),
    "mean": (images(lambda net, x: x.mean((2, 3), keepdim=True) + x.mean()), 1),
    "embedding": (
        (
            Network(
                lambda net, x: net.last(net.table(x).relu().mean(1)), table=nn.Embedding(9, 12), last=nn.Linear(12, 3)
            ),
            torch.arange(28).view(4, 7) % 9,
        ),
        1,
    ),
    "concatenation": (
        between(lambda net, x: torch.cat([x, net.other(x).relu()], 1), other=nn.Linear(12, 6), out=18),
        2,
    ),
    # a sum of a concatenation and one that is none: both are the same two pieces
    "concatenation and sum": (
        branches(
            lambda net, x: torch.cat([net.a(x), net.b(x)], 1) + net.c(x),
            a=nn.Linear(5, 4),
            b=nn.Linear(5, 6),
            c=nn.Linear(5, 10),
        ),
        2,
    ),
    # 4 | 6 = 6 | 4 holds only if both repeat the same two units
    "concatenations cut differently": (
        branches(
            lambda net, x: torch.cat([net.a(x), net.b(x)], 1) + torch.cat([net.b(x), net.a(x)], 1),
            a=nn.Linear(5, 4),
            b=nn.Linear(5, 6),
        ),
        1,
    ),
    "flattened": ((nn.Sequential(nn.Conv2d(2, 6, 3), nn.Flatten(), nn.Linear(54, 3)), draw(2, 2, 5, 5)), 1),
    "flattened, channels last": (
        (
            Network(
                lambda net, x: net.last(net.first(x).permute(0, 2, 3, 1).flatten(1)),
                first=nn.Conv2d(2, 6, 3),
                last=nn.Linear(54, 3),
            ),
            draw(2, 2, 5, 5),
        ),
        1,
    ),
    "flattened concatenation, channels last": (
        (
            Network(
                lambda net, x: net.last(torch.cat([net.a(x), net.b(x)], 1).permute(0, 2, 3, 1).reshape(2, -1)),
                a=nn.Conv2d(2, 4, 3),
                b=nn.Conv2d(2, 3, 3),
                last=nn.Linear(63, 3),
            ),
            draw(2, 2, 5, 5),
        ),
        2,
    ),
    "attention, packed": (
        tokens(
            lambda net, x: joined(
                F.scaled_dot_product_attention(*net.qkv(x).view(2, 7, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0))
            ),
            qkv=nn.Linear(12, 36),
        ),
        3,
    ),
    # the stream, heads, units of queries and keys, units of values
    "attention": (
        tokens(
            lambda net, x: x + joined(F.scaled_dot_product_attention(*map(heads, net.qkv(x).chunk(3, -1)))),
            qkv=nn.Linear(12, 36),
        ),
        3,
    ),
    "attention with a projection": (
        tokens(
            lambda net, x: x + net.o(joined(F.scaled_dot_product_attention(*map(heads, net.qkv(x).chunk(3, -1))))),
            qkv=nn.Linear(12, 36),
            o=nn.Linear(12, 12),
        ),
        4,
    ),
    "causal attention with a mask": (
        tokens(
            lambda net, x: joined(
                F.scaled_dot_product_attention(heads(x), heads(x), heads(x), is_causal=True)
                + F.scaled_dot_product_attention(heads(x), heads(x), heads(x), attn_mask=net.mask)
            ),
            mask=torch.ones(7, 7).tril().bool(),
        ),
        2,
    ),
    "attention as products": (
        tokens(
            lambda net, x: joined((heads(x) @ heads(x).transpose(-1, -2) + net.bias).softmax(-1) @ heads(net.v(x))),
            v=nn.Linear(12, 12),
            bias=(3, 1, 1),
        ),
        3,
    ),
    "multihead attention": (
        tokens(lambda net, x: net.attention(x, x, x)[0], attention=nn.MultiheadAttention(12, 3, batch_first=True)),
        4,
    ),
    "transformer layer": (
        tokens(
            lambda net, x: net.layer(x),
            layer=nn.TransformerEncoderLayer(12, 3, 16, batch_first=True, norm_first=True),
        ),
        4,
    ),
    "matrix products": (
        tokens(
            lambda net, x: x + torch.bmm(x, net.w.expand(2, 12, 12)) + net.v.matmul(x.mT)[..., None],
            w=(12, 12),
            v=(12,),
        ),
        1,
    ),
    "added products": (
        between(lambda net, x: torch.addmm(net.b, x, net.w) + torch.mv(x, net.b)[:, None], w=(12, 12), b=(12,)),
        1,
    ),
    "added products in batches": (
        tokens(lambda net, x: torch.baddbmm(net.b, x, net.w.expand(2, 12, 12)), w=(12, 12), b=(12,)),
        2,
    ),
    "added product with a vector": (
        between(lambda net, x: x + torch.addmv(net.b, x, net.w)[:, None], w=(12,), b=(1,)),
        1,
    ),
    "outer products": (between(lambda net, x: x @ torch.outer(net.a, net.b), a=(12,), b=(12,)), 2),
    "dot products": (between(lambda net, x: x * net.a.dot(net.a * 2), a=(12,)), 2),
    "einsum": (tokens(lambda net, x: torch.einsum("b t i, o i -> b t o", x, net.w), w=(12, 12)), 2),
    "einsum without arrow": (between(lambda net, x: torch.einsum("bi,ij", x, net.w), w=(12, 12)), 2),
    "bilinear": (between(lambda net, x: net.inner(x, x), inner=nn.Bilinear(12, 12, 12)), 2),
    "pooling": (images(lambda net, x: F.max_pool2d(F.avg_pool2d(x, 2), 2) + F.adaptive_avg_pool2d(x, 1)), 1),
    "pooling with places": (images(lambda net, x: F.max_pool2d(x, 2, return_indices=True)[0]), 1),
    "upsampling": (
        images(lambda net, x: F.interpolate(x, scale_factor=2) + F.interpolate(x, scale_factor=2, mode="bilinear")),
        1,
    ),
    "padding": (images(lambda net, x: F.pad(x, (1, 2, 0, 1)) + F.pad(x, (1, 2, 0, 1), mode="reflect")), 1),
    "rolled pixels": (images(lambda net, x: x.roll((1, 2), (2, 3)).flip(3)), 1),
    "channel shuffle": (images(lambda net, x: net.shuffle(x), shuffle=nn.ChannelShuffle(3)), 2),
    "channel shuffle by hand": (images(lambda net, x: x.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)), 2),
    "pixel shuffle": (images(lambda net, x: F.pixel_shuffle(x, 2), out=3), 1),
    "pixel unshuffle": (images(lambda net, x: F.pixel_unshuffle(x, 2), out=48), 1),
    "expanded": (tokens(lambda net, x: x + net.w.expand(2, 7, 12) + net.w.expand_as(x), w=(1, 1, 12)), 1),
    "without gradients": (between(without_gradients, w=(12,)), 1),
    "written in place": (between(written_in_place, out=27), 3),
    "indexed": (images(lambda net, x: x[:, :, [0, 2]] + x[:, :, :2].index_select(2, torch.tensor([1, 0]))), 1),
    "indexed by a table": (
        tokens(lambda net, x: x + net.table[net.places], table=(9, 12), places=torch.tensor([0, 8, 1, 2, 3, 3, 0])),
        1,
    ),
    "torn indices": (images(lambda net, x: x + x[torch.tensor([0, 1]), :, torch.tensor([0, 1])].mean(), channels=4), 1),
    "dropout": (between(lambda net, x: F.dropout(net.drop(x), training=False), drop=nn.Dropout(0.5)), 1),
}


# A function between two linear layers, of its units x (4, 12) and a parameter w (12,), and the sizes of the
# permutations; None where no rule applies, which may cost permutations but never correctness.
FUNCTIONS = {
    "x": [12],
    "x.relu()": [12],
    "x.softmax(-1) + x.log_softmax(1) + F.softmin(x, 0)": [12],
    "torch.max(x, w) / torch.min(x, w).exp()": [12],
    "x.clamp(w, w.sum()).lerp(x, w[:1])": [11],
    "x * (x > 0).to(x.dtype) * (x > -1).type_as(x) * (x < 9).float().clone()": [12],
    "x * ((x > 0) & (x < 1) | (x > 2))": [12],
    "x + torch.ones(12) + x.new_zeros(12) + torch.zeros_like(x)": [12],
    "x * torch.arange(12)": [],
    "x * (x > torch.linspace(-1, 1, 12))": [],
    "x.sum(1, keepdim=True) * w": [12, 12],
    "(x[:, :, None] * x[:, None]).sum(-2)": [12],
    # slices
    "x[:, -100:2]": [2, 10],
    "x[:, 5:100]": [5, 7],
    "x[:, -4:-1]": [8, 3],
    "torch.cat([x[:, :5], x[:, -3:]], 1)": [5, 4, 3],
    "torch.cat([x[:, 8:3], x[:, 20:], x[:, :4]], 1)": [4, 8],
    "torch.cat([x[:, :0] + w[:0], x], 1) + (x[:, :0] * x[:, :0]).sum(1, keepdim=True)": [12, 12],
    "x[:, ::2]": [],
    "x[:, 3:5:7]": [3, 8],
    "x[:, None][:, -3:9:4].squeeze(1)": [12],
    "x.narrow(-1, -5, 3)": [7, 3, 2],
    "torch.cat([x, x.narrow(1, 12, 0)], 1)": [12],
    "x.narrow(1, torch.tensor(3), 4)": None,
    "x * x[:, 2:3] + x.select(-1, -12)[:, None]": [9],
    "x + w[2].item()": [12, 2, 9],
    "torch.cat(x.split(5, -1)[::-1], 1)": [5, 5, 2],
    "torch.cat(x.split([0, 7, 0, 5], -1), 1) + x.unsafe_split(12, 1)[0]": [7, 5],
    "torch.mul(*x.chunk(2, 1))": [6],
    "torch.stack(x.chunk(20, -1)).sum(0)": [],
    "torch.cat(x.tensor_split((-20, -3), -1), 1)": [9, 3],
    "torch.cat(x.tensor_split((8, 4), 1), 1)": None,
    "sum(x.view(4, 3, 4).unbind(-2))": [4],
    "F.glu(x, -1)": [6],
    # joined, repeated, padded, moved
    "torch.cat([x, x], -1)": [12],
    "torch.cat([x[:, 4:], x[:, :4]], 1) * x": [4],
    "x + torch.cat([torch.zeros(0), torch.zeros(0)]).sum()": [12],
    "torch.cat([x.sum(1, keepdim=True), x, torch.zeros(0)], 1)": [12],
    "torch.stack([x, x * 2, w + x], -1).amax(-1)": [12],
    "torch.stack([x, w + x], -2).flatten(1)": [12],
    "torch.cat([x.repeat(1, 2), x.repeat_interleave(2, 1)], 1)": [12, 2, 2],
    "x.tile(1, 1, 3)[0]": [12, 3],
    "x + (x.repeat(1, 0) * w.repeat(0)).sum(1, keepdim=True)": [12, 12],
    "x[..., None].expand(-1, -1, 3).flatten(1)": [12, 3],
    "x.repeat_interleave(2).view(4, 24)": None,
    "F.pad(x, (2, 1), value=0.5)": [12],
    "F.pad(x, (-2, 3))": [2, 10],
    "F.pad(x, (-5, -6))": [5, 6],
    "torch.cat([F.pad(x, (-12, 1)), x], 1)": [12],
    "F.pad(x[None], (2, 3), mode='circular')[0]": [],
    "x.roll(1, 1)": [],
    "x.roll(-1, 0) + x.flip(-2)": [12],
    "x.roll(3)": [],
    "x[:, [3, 1, -2]]": [],
    "x * x.index_select(-1, torch.tensor(3))": [],
    "x * x.sum().index_select(0, torch.tensor([0]))": None,
    "x.gather(1, x.argsort(1))": None,
    # views
    "x.unflatten(1, (3, 4)).mean(1)": [3, 4],
    "x.view(4, 2, 6).reshape(4, 3, 4).view(-1, 12)": [],
    "x.view(4, 2, 6).reshape(4, 2, 2, 3).view_as(x)": [2, 2, 3],
    "x.view(4, -1, 3).transpose(1, -1).reshape(4, -1)": [4, 3],
    "x.view(8, 6).softmax(-1).view(4, 12)": [2, 6],
    "x.view(6, 8).relu().view(4, 12)": [],
    "x.ravel().unflatten(0, (4, 12))": [12],
    "x + x.view(torch.int16).sum(1, keepdim=True) * 0": None,
    "x[:, None].unsqueeze(-1).squeeze(-3).squeeze((-1, 1))": [12],
    "x.T.t().mT.mT.movedim(0, -1).swapaxes(0, -1) + x.transpose(0, -1).T": [12],
    "x[:, None].permute(-1, 0, 1).permute(1, 2, 0)[:, 0].clone().t_().t()": [12],
    "torch.as_strided(x, (4, 12), (12, 1))": None,
    # sums, extremes, orders
    "x * x.sum(-1, keepdim=True) + x.std((1,), keepdim=True) + x.var()": [12],
    "x + x.sum((0, -1), keepdim=True) + x.mean(()) + x.sum(0)": [12],
    "x + torch.all(x > 0, dim=())": None,
    "(x - torch.var_mean(x, 1, keepdim=True)[1]) * x.logsumexp(1)[:, None]": [12],
    "x * ((x > 0).all(1, keepdim=True) | (x > 1).any()) + (x > 0).count_nonzero(-1)[:, None]": [12],
    "x * x.amax(1, keepdim=True) - x.amin((0, 1)) + x.max() + x.prod(-1, keepdim=True)": [12],
    "x - x.max(1, keepdim=True).values + x.median() + x.nanmedian(-1, keepdim=True)[0]": [12],
    "x - x.round().mode(-1, keepdim=True).values + x.min(0).values": [12],
    "x + x.max(1, keepdim=True).indices": [],
    "x + x.argmax(1, keepdim=True)": [],
    "x + x.argmin()": [],
    "x + x.argmax(0) + x.max(0).indices + x.argsort(0) + x.cummax(0)[0]": [12],
    "x.sort(1).values": [],
    "x.cumsum(-1)": [],
    "x.topk(4, 1).values": [],
    "x.topk(2, 0)[0].tile(2, 1) + x.clone().cumsum_(0)": [12],
    "x * x.sum().cumsum(0) + x.mean().sort(0)[0] + x.sum().flip(0) + x.sum().argmax(0)": [12],
    "F.normalize(x) + x / x.norm() + x / x.norm(p=3, dim=-1, keepdim=True)": [12],
    "x.renorm(2, 1, 1.0)": None,
    # in place
    "copied(x, lambda y: y[:, -30:4].mul_(2))": [4, 8],
    "copied(x, lambda y: y[:, -3:].add_(w[:1]))": [3, 9, 11],
    "copied(x, lambda y: y.T[2:5].copy_(x[:, 7:10].T))": [2, 3, 2, 2],
    "copied(x, lambda y: y[:, ::2].zero_())": [],
    "copied(x, lambda y: y.select(1, -1).copy_(x[:, 0]))": [10],
    "copied(x, lambda y: y.diagonal().mul_(2))": None,
}


def copied(x, change):
    copy = x.clone()
    change(copy)
    return copy


def with_function(source):
    function = eval("lambda x, w: " + source)  # noqa: S307 (a row of the table above)
    network = Network(
        lambda net, x: net.last(function(net.first(x), getattr(net, "w", None))),
        first=nn.Linear(5, 12),
        last=nn.Linear(function(draw(4, 12), draw(12)).shape[1], 3),
        **({"w": (12,)} if "w" in re.findall(r"\w+", source) else {}),
    )
    return network, draw(4, 5)


@pytest.mark.parametrize("name", CASES)
def test_rule(name):
    (network, example), expected = CASES[name]
    symmetry = derive_symmetry(network, example)
    assert symmetry.without_rule == ()
    assert prove_symmetry(network, symmetry, example) <= 1e-10
    assert len(symmetry.permutations) == expected, str(symmetry)


@pytest.mark.filterwarnings("ignore:no rule")
@pytest.mark.parametrize("source", FUNCTIONS)
def test_function(source):
    network, example = with_function(source)
    symmetry = derive_symmetry(network, example)
    assert prove_symmetry(network, symmetry, example) <= 1e-10
    assert bool(symmetry.without_rule) == (FUNCTIONS[source] is None)
    if FUNCTIONS[source] is not None:
        assert sorted(symmetry.permutations.values()) == sorted(FUNCTIONS[source]), str(symmetry)


def test_operations_of_extensions_have_no_rule():
    with torch.library._scoped_library("hrebasin_test", "FRAGMENT") as library:
        library.define("linear(Tensor x) -> Tensor")
        assert find_rule(torch.ops.aten.linear.default) is not None
        assert find_rule(torch.ops.hrebasin_test.linear.default) is None


def test_operations_in_place_have_the_same_rule():
    aten = torch.ops.aten
    assert find_rule(aten.add_.Tensor) is find_rule(aten.add.Tensor) is find_rule(aten.relu_.default)
    assert find_rule(aten.hardswish_.default) is find_rule(aten.clamp_.Tensor) is find_rule(aten.add_.Tensor)
    assert find_rule(aten.squeeze_.default) is find_rule(aten.view.default)


def test_random_operations_have_no_rule():
    assert find_rule(torch.ops.aten.bernoulli.default) is None
    assert find_rule(torch.ops.aten.rand_like.default) is None


def test_every_rule_has_a_case():
    """Operations that share a rule stand for one another, but for those that take their arguments in another way."""
    seen = set()
    for network, example in (*(case for case, _ in CASES.values()), *map(with_function, FUNCTIONS)):
        subject = Subject(network)
        args, kwargs = arguments(example, subject)
        nodes = torch.export.export(subject, args, kwargs).graph.nodes
        seen |= {node.target for node in nodes if isinstance(node.target, torch._ops.OpOverload)}
    names = {target._schema.name.partition("::")[2].rstrip("_") for target in seen}
    apart = {"median", "nanmedian", "mode", "baddbmm", "addmm", "addmv", "count_nonzero", "all", "any"}
    assert set(RULES.values()) <= set(map(find_rule, seen))
    assert apart <= names
