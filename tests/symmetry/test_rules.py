"""Every rule alone, on networks of one or two layers: the permutations that are expected, and they are proven."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hrebasin.symmetry import derive_symmetry, prove_symmetry
from hrebasin.symmetry.rules import find_rule

attend = F.scaled_dot_product_attention


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def heads(x):
    return x.unflatten(-1, (3, -1)).transpose(1, 2)


def joined(x):
    return x.transpose(1, 2).flatten(2)


def written_in_place(x):
    padded = torch.zeros(4, 15)
    padded[:, :3] = x[:, :3]
    return torch.cat([padded, x], 1)


def without_gradients(x, w):
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        scaled = x * w
    return scaled + x


def copied(x, change):
    copy = x.clone()
    change(copy)
    return copy


# What comes before a function, and its input: the function sees 12 units x of 4 vectors, of 2 images with 4 x 4
# pixels or of 2 sequences with 7 tokens.
BEFORE = {
    "vectors": (lambda: nn.Linear(5, 12), (4, 5)),
    "images": (lambda: nn.Conv2d(2, 12, 3), (2, 2, 6, 6)),
    "tokens": (lambda: nn.Linear(5, 12), (2, 7, 5)),
}
PARTS = {  # what a function may name
    "w": lambda: nn.Parameter(torch.zeros(12)),
    "m": lambda: nn.Parameter(torch.zeros(12, 12)),
    "one": lambda: nn.Parameter(torch.zeros(1)),
    "biases": lambda: nn.Parameter(torch.zeros(3, 1, 1)),
    "table": lambda: nn.Parameter(torch.zeros(9, 12)),
    "places": lambda: torch.tensor([0, 8, 1, 2, 3, 3, 0]),
    "mask": lambda: torch.ones(7, 7).tril().bool(),
    "layer": lambda: nn.Linear(12, 12),
    "other": lambda: nn.Linear(12, 6),
    "qkv": lambda: nn.Linear(12, 36),
    "inner": lambda: nn.Bilinear(12, 12, 12),
    "attention": lambda: nn.MultiheadAttention(12, 3, batch_first=True),
}


class Between(nn.Module):
    """A layer, a module or a function in source text, and another layer."""

    def __init__(self, kind, function):
        super().__init__()
        make, self.shape = BEFORE[kind]
        self.first, self.function, self.parts = make(), function, []
        if isinstance(function, str):
            self.parts = [name for name in PARTS if re.search(rf"\b{name}\b(?!=)", function)]
            self.function = eval(f"lambda {', '.join(['x', *self.parts])}: {function}")  # noqa: S307 (a row below)
        for name in self.parts:
            part = PARTS[name]()
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        found = self.middle(self.first(draw(*self.shape)))
        self.last = nn.Conv2d(found.shape[1], 3, 1) if kind == "images" else nn.Linear(found.shape[-1], 3)

    def middle(self, x):
        return self.function(x, *(getattr(self, name) for name in self.parts))

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


# The sizes of the permutations; None where no rule applies, which may cost permutations but never correctness.
VECTORS = {
    "x": [12],
    "F.silu(F.gelu(x)) + F.hardswish(x) + F.logsigmoid(x) + F.mish(x) + F.rrelu(x)": [12],
    "F.hardswish(x.relu_().add_(1).mul_(w), inplace=True)": [12],
    "x.softmax(-1) + x.log_softmax(1) + F.softmin(x, 0)": [12],
    "torch.max(x, w) / torch.min(x, w).exp()": [12],
    "torch.where(x > w, x, 0.5).masked_fill(x < -1, 0.0)": [12],
    "x.clamp(w, w.sum()).lerp(x, w[:1])": [11],
    "x * (x > 0).to(x.dtype) * (x > -1).type_as(x) * (x < 9).float().clone()": [12],
    "x + torch.ones(12) + x.new_zeros(12) + torch.zeros_like(x)": [12],
    "x * torch.arange(12)": [],
    "(x[:, :, None] * x[:, None]).sum(-2)": [12],
    "x + layer(x)": [12],
    "x * F.linear(x, w)[:, None]": [12],
    "x * F.cosine_similarity(x, w[None])[:, None]": [12],
    "torch.addmm(w, x, m) + torch.mv(x, w)[:, None]": [12],
    "x + torch.addmv(one, x, w)[:, None]": [12],
    "x @ torch.outer(w, m.sum(0))": [12, 12, 12],
    "x * w.dot(w * 2)": [12, 12],
    "torch.einsum('bi,ij', x, m)": [12, 12],
    "inner(x, x)": [12, 12],
    "without_gradients(x, w)": [12],
    # slices
    "x[:, -100:2]": [2, 10],
    "x[:, -4:-1]": [8, 3],
    "torch.cat([x[:, 8:3], x[:, 20:], x[:, :4]], 1)": [4, 8],
    "torch.cat([x[:, :0] + w[:0], x], 1) + (x[:, :0] * x[:, :0]).sum(1, keepdim=True)": [12, 12],
    "x[:, ::2]": [],
    "x[:, 3:5:7]": [3, 8],
    "x[:, None][:, -3:9:4].squeeze(1)": [12],
    "x.narrow(-1, -5, 3)": [7, 3, 2],
    "x.narrow(1, torch.tensor(3), 4)": None,
    "x * x[:, 2:3] + x.select(-1, -12)[:, None]": [9],
    "x + w[2].item()": [12, 2, 9],
    "torch.cat(x.split(5, -1)[::-1], 1)": [5, 5, 2],
    "torch.cat(x.split([0, 7, 0, 5], -1), 1) + x.unsafe_split(12, 1)[0]": [7, 5],
    "torch.mul(*x.chunk(2, 1))": [6],
    "torch.cat(x.tensor_split((-20, -3), -1), 1)": [9, 3],
    "torch.cat(x.tensor_split((8, 4), 1), 1)": None,
    "sum(x.view(4, 3, 4).unbind(-2))": [4],
    "F.glu(x, -1)": [6],
    # joined, repeated, padded, moved
    "torch.cat([x, other(x).relu()], 1)": [12, 6],
    "torch.cat([x.sum(1, keepdim=True), x, torch.zeros(0)], 1)": [12],
    "torch.stack([x, x * 2, w + x], -1).amax(-1)": [12],
    "torch.stack([x, w + x], -2).flatten(1)": [12],
    "torch.cat([x.repeat(1, 2), x.repeat_interleave(2, 1)], 1)": [12, 2, 2],
    "x.tile(1, 1, 3)[0]": [12, 3],
    "x[..., None].expand(-1, -1, 3).flatten(1)": [12, 3],
    "x.repeat_interleave(2).view(4, 24)": None,
    "F.pad(x, (2, 1), value=0.5)": [12],
    "torch.cat([F.pad(x, (-12, 1)), x], 1)": [12],
    "F.pad(x[None], (2, 3), mode='circular')[0]": [],
    "x.roll(1, 1)": [],
    "x.roll(-1, 0) + x.flip(-2)": [12],
    "x[:, [3, 1, -2]]": [],
    "x * x.index_select(-1, torch.tensor(3))": [],
    # views
    "x.unflatten(1, (3, 4)).mean(1)": [3, 4],
    "x.view(4, 2, 6).reshape(4, 3, 4).view(-1, 12)": [],
    "x.view(4, 2, 6).reshape(4, 2, 2, 3).view_as(x)": [2, 2, 3],
    "x.view(4, -1, 3).transpose(1, -1).reshape(4, -1)": [4, 3],
    "x.view(8, 6).softmax(-1).view(4, 12)": [2, 6],
    "x.view(6, 8).relu().view(4, 12)": [],
    "x + x.view(torch.int16).sum(1, keepdim=True) * 0": None,
    "x[:, None].unsqueeze(-1).squeeze(-3).squeeze((-1, 1))": [12],
    "x.T.t().mT.mT.movedim(0, -1).swapaxes(0, -1) + x.transpose(0, -1).T": [12],
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
    "x + x.argmax(0) + x.max(0).indices + x.argsort(0) + x.cummax(0)[0]": [12],
    "x.cumsum(-1)": [],
    "x.topk(2, 0)[0].tile(2, 1) + x.clone().cumsum_(0)": [12],
    "x * x.sum().cumsum(0) + x.mean().sort(0)[0] + x.sum().flip(0) + x.sum().argmax(0)": [12],
    "F.normalize(x) + x / x.norm() + x / x.norm(p=3, dim=-1, keepdim=True)": [12],
    # in place
    "written_in_place(x)": [3, 9, 12],
    "copied(x, lambda y: y[:, -30:4].mul_(2))": [4, 8],
    "copied(x, lambda y: y[:, -3:].add_(w[:1]))": [3, 9, 11],
    "copied(x, lambda y: y.T[2:5].copy_(x[:, 7:10].T))": [2, 3, 2, 2],
    "copied(x, lambda y: y[:, ::2].zero_())": [],
    "copied(x, lambda y: y.select(1, -1).copy_(x[:, 0]))": [10],
}
IMAGES = {
    "x * w[:, None, None] + w.view(1, 12, 1, 1)": [12],
    "F.local_response_norm(x, 3)": [],
    "x.mean((2, 3), keepdim=True) + x.mean()": [12],
    "F.max_pool2d(F.avg_pool2d(x, 2), 2) + F.adaptive_avg_pool2d(x, 1)": [12],
    "F.max_pool2d(x, 2, return_indices=True)[0]": [12],
    "F.interpolate(x, scale_factor=2) + F.interpolate(x, scale_factor=2, mode='bilinear')": [12],
    "F.pad(x, (1, 2, 0, 1)) + F.pad(x, (1, 2, 0, 1), mode='reflect')": [12],
    "x.roll((1, 2), (2, 3)).flip(3)": [12],
    "x.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)": [3, 4],
    "F.pixel_shuffle(x, 2)": [3],
    "F.pixel_unshuffle(x, 2)": [12],
    "x[:, :, [0, 2]] + x[:, :, :2].index_select(2, torch.tensor([1, 0]))": [12],
    "x + x[torch.tensor([0, 1]), :, torch.tensor([0, 1])].mean()": [12],
    "x.flatten(1)[..., None, None]": [12],
    "x.permute(0, 2, 3, 1).flatten(1)[..., None, None]": [12],
    "torch.cat([x, x[:, :5]], 1).permute(0, 2, 3, 1).reshape(2, -1)[..., None, None]": [5, 7],
}
TOKENS = {
    "F.layer_norm(x, (12,))": [12],
    "x + torch.bmm(x, m.expand(2, 12, 12)) + w.matmul(x.mT)[..., None]": [12],
    "torch.baddbmm(w, x, m.expand(2, 12, 12))": [12, 12],
    "torch.einsum('b t i, o i -> b t o', x, m)": [12, 12],
    "x + w.view(1, 1, 12).expand(2, 7, 12) + w.view(1, 1, 12).expand_as(x)": [12],
    "x + table[places]": [12],
    # heads, units of queries and keys, units of values; behind + also the stream
    "joined(attend(*qkv(x).view(2, 7, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)))": [12, 3, 4, 4],
    "joined(attend(*[qkv(x).reshape(2, 7, 3, 3, 4).movedim(2, 0).transpose(1, 2)[k] for k in (0, 1, -1)]))": [
        12,
        3,
        4,
        4,
    ],
    "x + joined(attend(*map(heads, qkv(x).chunk(3, -1))))": [3, 4, 4],
    "x + layer(joined(attend(*map(heads, qkv(x).chunk(3, -1)))))": [12, 3, 4, 4],
    "joined(attend(*[heads(x)] * 3, is_causal=True) + attend(*[heads(x)] * 3, attn_mask=mask))": [3, 4],
    "joined((heads(x) @ heads(x).transpose(-1, -2) + biases).softmax(-1) @ heads(layer(x)))": [3, 4, 4],
    "attention(x, x, x)[0]": [12, 3, 4, 4, 12],
}
MODULES = {
    "linear without bias": ("vectors", nn.Linear(12, 12, bias=False), [12, 12]),
    "slopes": ("vectors", nn.PReLU(12), [12]),
    "one slope": ("images", nn.PReLU(), [12]),
    "weight norm": ("vectors", nn.utils.parametrizations.weight_norm(nn.Linear(12, 8)), [12, 8]),
    "convolution": ("images", nn.Conv2d(12, 8, 3, padding="same"), [12, 8]),
    # groups, units of a group going in, units of a group coming out
    "grouped": ("images", nn.Conv2d(12, 18, 3, groups=3), [3, 4, 6]),
    "depthwise": ("images", nn.Conv2d(12, 12, 3, groups=12), [12]),
    "depthwise with a multiplier": ("images", nn.Conv2d(12, 24, 3, groups=12), [12, 2]),
    "transposed": ("images", nn.ConvTranspose2d(12, 8, 3), [12, 8]),
    "grouped and transposed": ("images", nn.ConvTranspose2d(12, 18, 3, stride=2, groups=3), [3, 4, 6]),
    "batch norm": ("images", nn.BatchNorm2d(12), [12]),
    "batch norm without weights": ("images", nn.BatchNorm2d(12, affine=False), [12]),
    "batch norm of the batch": ("images", nn.BatchNorm2d(12, track_running_stats=False), [12]),
    "instance norm": ("images", nn.InstanceNorm2d(12, affine=True), [12]),
    "group norm": ("images", nn.GroupNorm(3, 12), [3, 4]),
    "group norm of one group": ("images", nn.GroupNorm(1, 12), [12]),
    "layer norm": ("tokens", nn.LayerNorm(12), [12]),
    "layer norm of images": ("images", nn.LayerNorm([12, 4, 4]), [12]),
    "root mean square norm": ("tokens", nn.RMSNorm(12), [12]),
    "channel shuffle": ("images", nn.ChannelShuffle(3), [3, 4]),
    "transformer": (
        "tokens",
        nn.TransformerEncoderLayer(12, 3, 16, batch_first=True, norm_first=True),
        [12, 3, 4, 4, 16],
    ),
}
ROWS = {source: ("vectors", source, sizes) for source, sizes in VECTORS.items()}
ROWS |= {f"images: {source}": ("images", source, sizes) for source, sizes in IMAGES.items()}
ROWS |= {f"tokens: {source}": ("tokens", source, sizes) for source, sizes in TOKENS.items()} | MODULES


def assert_derived(network, example, sizes):
    symmetry = derive_symmetry(network, example)
    assert prove_symmetry(network, symmetry, example) <= 1e-10
    assert bool(symmetry.without_rule) == (sizes is None)
    if sizes is not None:
        assert sorted(symmetry.permutations.values()) == sorted(sizes), str(symmetry)


@pytest.mark.filterwarnings("ignore:no rule")
@pytest.mark.parametrize("row", ROWS)
def test_rule(row):
    kind, function, sizes = ROWS[row]
    network = Between(kind, function)
    assert_derived(network, draw(*network.shape), sizes)


@pytest.mark.parametrize(
    ("convolution", "shape"),
    [(nn.Conv1d, (2, 2, 8)), (nn.Conv3d, (1, 2, 4, 4, 4)), (nn.Conv2d, (2, 5, 5))],  # the last is one image alone
)
def test_convolutions_of_other_dimensions(convolution, shape):
    assert_derived(nn.Sequential(convolution(2, 6, 2), nn.ReLU(), convolution(6, 3, 1)), draw(*shape), [6])


class Branches(nn.Module):
    """Layers of 4, 6 and 10 units of the same input, joined by a function."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.c, self.last = nn.Linear(5, 4), nn.Linear(5, 6), nn.Linear(5, 10), nn.Linear(10, 3)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.a(x), self.b(x), self.c(x)))


@pytest.mark.parametrize(
    ("function", "sizes"),
    [
        # a sum of a concatenation and one that is none: both are the same two pieces
        (lambda a, b, c: torch.cat([a, b], 1) + c, [4, 6]),
        # 4 | 6 = 6 | 4 holds only if both repeat the same two units
        (lambda a, b, c: torch.cat([a, b], 1) + torch.cat([b, a], 1) + 0 * c.sum(), [2, 10]),
    ],
)
def test_concatenations_that_are_cut_differently(function, sizes):
    assert_derived(Branches(function), draw(4, 5), sizes)


def test_operations_of_extensions_and_random_ones_have_no_rule_and_those_in_place_have_the_same():
    aten = torch.ops.aten
    with torch.library._scoped_library("hrebasin_test", "FRAGMENT") as library:
        library.define("linear(Tensor x) -> Tensor")
        assert find_rule(aten.linear.default) is not None
        assert find_rule(torch.ops.hrebasin_test.linear.default) is None
    assert find_rule(aten.bernoulli.default) is find_rule(aten.rand_like.default) is None
    assert find_rule(aten.add_.Tensor) is find_rule(aten.add.Tensor) is find_rule(aten.relu_.default)
    assert find_rule(aten.squeeze_.default) is find_rule(aten.view.default)
