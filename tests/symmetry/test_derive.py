import copy
import dataclasses
import warnings

import pytest
import torch
from torch import nn

from hrebasin.symmetry import derive_symmetry, prove_symmetry, symmetry_from_spec


def perceptron():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


class Plain(nn.Module):
    """Two linear layers with something else between or around them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.middle(self.first(x)))

    def middle(self, x):
        return x.relu()


def test_a_perceptron_has_the_specification_that_is_known():
    spec = {
        "0.weight": ("P1", None),
        "0.bias": ("P1",),
        "2.weight": ("P2", "P1"),
        "2.bias": ("P2",),
        "4.weight": (None, "P2"),
        "4.bias": (None,),
    }
    network = perceptron()
    assert derive_symmetry(network, torch.zeros(2, 4)) == symmetry_from_spec(spec, network.state_dict())


def test_the_network_and_the_random_state_are_left_as_they_are():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(36, 3)).train()
    network[4].weight.requires_grad_(False)
    before, state = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    example = torch.ones(2, 3, 5, 5)
    prove_symmetry(network, derive_symmetry(network, example), example)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert network[0].weight.requires_grad
    assert not network[4].weight.requires_grad
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(example, torch.ones(2, 3, 5, 5))


def test_the_batch_size_and_gradients_do_not_matter():
    network = perceptron()
    expected = derive_symmetry(network, torch.zeros(2, 4))
    with torch.no_grad():
        assert derive_symmetry(network, torch.zeros(8, 4)) == expected  # 8 images, 8 units
    assert derive_symmetry(network, torch.zeros(1, 4, dtype=torch.float64)) == expected
    assert derive_symmetry(network.double(), torch.zeros(4)) == expected


class TestTensors:
    def test_tied_weights_have_the_same_axes(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.encode, self.decode = nn.Linear(5, 9, bias=False), nn.Linear(9, 9, bias=False)
                self.again, self.out = nn.Linear(9, 9), nn.Linear(9, 5)
                self.again.weight = self.decode.weight

            def forward(self, x):
                return self.out(self.again(self.decode(self.encode(x)).relu()).relu())

        network, example = Tied(), torch.randn(2, 5)
        symmetry = derive_symmetry(network, example)
        assert symmetry.axes["again.weight"] == symmetry.axes["decode.weight"]
        assert list(symmetry.permutations.values()) == [9]
        assert prove_symmetry(network, symmetry, example) <= 1e-10

    def test_word_embeddings_tied_to_the_output(self):
        class Language(nn.Module):
            def __init__(self):
                super().__init__()
                self.words, self.places = nn.Embedding(11, 6), nn.Parameter(torch.zeros(1, 5, 6))
                self.layer = nn.Linear(6, 6)
                self.out = nn.Linear(6, 11, bias=False)
                self.out.weight = self.words.weight

            def forward(self, tokens):
                x = self.words(tokens) + self.places
                return self.out(x + self.layer(x).relu())

        network, example = Language(), torch.arange(10).view(2, 5)
        symmetry = derive_symmetry(network, example)
        assert symmetry.permutations == {"P1": 6}
        assert prove_symmetry(network, symmetry, example) <= 1e-10

    def test_integers_and_buffers_that_are_not_saved_stay(self):
        class Buffers(Plain):
            def __init__(self):
                super().__init__()
                self.register_buffer("scale", torch.ones(8))
                self.register_buffer("shift", torch.zeros(4), persistent=False)
                self.register_buffer("signs", torch.ones(3, dtype=torch.int64))

            def forward(self, x):
                return self.last(self.scale * self.first(x + self.shift).relu()) * self.signs

        network, example = Buffers(), torch.randn(2, 4)
        symmetry = derive_symmetry(network, example)
        assert "shift" not in symmetry.axes
        assert [axis[0][0].name for axis in (*symmetry.axes["scale"], *symmetry.axes["signs"])] == ["P1", None]
        assert prove_symmetry(network, symmetry, example) <= 1e-10

    def test_a_unit_scaled_by_integers_or_by_a_buffer_that_is_not_saved_stays(self):
        for persistent, dtype in ((True, torch.int64), (False, torch.float32)):
            network = Plain()
            network.register_buffer("scale", torch.arange(8).to(dtype), persistent=persistent)
            network.middle = lambda x, network=network: x * network.scale
            assert derive_symmetry(network, torch.zeros(2, 4)).permutations == {}

    def test_scalars(self):
        network = Plain()
        network.gain = nn.Parameter(torch.tensor(0.0))
        network.one = nn.Parameter(torch.zeros(1))
        type(network).middle, before = lambda self, x: self.gain * x.relu() + self.one, Plain.middle
        try:
            symmetry = derive_symmetry(network, torch.zeros(2, 4))
            assert symmetry.permutations == {"P1": 8}
            assert symmetry.axes["gain"] == ()
            assert prove_symmetry(network, symmetry, torch.randn(2, 4)) <= 1e-10
        finally:
            Plain.middle = before

    def test_parametrised_modules(self):
        network = Plain()
        nn.utils.parametrizations.weight_norm(network.first)
        nn.utils.parametrizations.spectral_norm(network.last)
        example = torch.randn(2, 4)
        symmetry = derive_symmetry(network, example)
        assert symmetry.permutations["P1"] == 8
        assert "first.parametrizations.weight.original1" in symmetry.axes
        assert prove_symmetry(network, symmetry, example) <= 1e-10

    def test_a_network_without_parameters(self):
        network = nn.Flatten()
        symmetry = derive_symmetry(network, torch.ones(2, 3, 3))
        assert (symmetry.permutations, symmetry.axes) == ({}, {})
        assert prove_symmetry(network, symmetry, torch.ones(2, 3, 3)) == 0

    def test_tensors_without_part_in_the_outputs_stay(self):
        network = Plain()
        network.head = nn.Linear(8, 2)
        with pytest.warns(UserWarning, match="head.weight, head.bias take no part in the outputs"):
            symmetry = derive_symmetry(network, torch.zeros(2, 4))
        assert symmetry.permutations == {"P1": 8}
        assert {factor.name for axis in symmetry.axes["head.weight"] for s in axis for factor in s} == {None}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda net: net.half(), "'first.weight' has dtype torch.float16"),
            (lambda net: net.bfloat16(), "'first.weight' has dtype torch.bfloat16"),
            (lambda net: net.to(torch.complex64), "'first.weight' is complex"),
            (lambda net: net.to("meta"), "'first.weight' is on the meta device"),
            (lambda net: setattr(net, "last", nn.LazyLinear(3)), "'last.weight' is not initialised"),
            (lambda net: net.register_buffer("q", quantised()), "'q' is quantised"),
        ],
    )
    def test_other_tensors_are_refused_by_name(self, change, message):
        network = Plain()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's: complex modules and quantised tensors are unusual
            change(network)
        for act in (derive_symmetry, lambda net, example: prove_symmetry(net, None, example)):
            with pytest.raises(ValueError, match=message):
                act(network, torch.zeros(2, 4))

    def test_quantised_modules_are_refused(self):
        class Packed(nn.Module):
            def get_extra_state(self):
                return None

            def _save_to_state_dict(self, destination, prefix, keep_vars):
                destination[prefix + "_packed_params"] = (torch.zeros(2), None)

        network = Plain()
        network.first = Packed()
        with pytest.raises(ValueError, match="'first._packed_params' is no tensor but tuple"):
            derive_symmetry(network, torch.zeros(2, 4))


def quantised():
    return torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8)


class TestInputsAndOutputs:
    def test_several_inputs_by_place_and_by_name(self):
        class Pair(Plain):
            def forward(self, x, *, y, scale=1.0):
                return self.last((self.first(x) * self.first(y)).relu()) * scale

        network, x, y = Pair(), torch.randn(2, 4), torch.randn(2, 4)
        symmetry = derive_symmetry(network, {"x": x, "y": y, "scale": 2.0})
        assert symmetry.permutations == {"P1": 8}
        assert prove_symmetry(network, symmetry, {"x": x, "y": y}) <= 1e-10
        bilinear = nn.Bilinear(4, 4, 2)
        assert derive_symmetry(bilinear, (x, y)).permutations == {}

    @pytest.mark.parametrize("kind", [tuple, list, dict, "dataclass", "nested"])
    def test_outputs_of_many_kinds_all_stay(self, kind):
        @dataclasses.dataclass
        class Outputs:
            logits: torch.Tensor
            features: torch.Tensor | None

        class Several(Plain):
            def forward(self, x):
                features = self.first(x)
                logits = self.last(features.relu())
                if kind is dict:
                    return {"logits": logits, "features": features}
                if kind == "dataclass":
                    return Outputs(logits, features)
                return {"all": [logits, (features, None, 3)]} if kind == "nested" else kind((logits, features))

        assert derive_symmetry(Several(), torch.zeros(2, 4)).permutations == {}

    def test_outputs_without_a_tensor_are_refused(self):
        class Nothing(nn.Module):
            def forward(self, x):
                return None

        with pytest.raises(ValueError, match="the outputs of Nothing hold no tensor"):
            derive_symmetry(Nothing(), torch.zeros(2, 4))

    @pytest.mark.parametrize(
        ("example", "message"),
        [
            (torch.zeros(2, 5), r"Plain does not run on the example of shape \(2, 5\): RuntimeError: .*shapes"),
            ((torch.zeros(2, 4), torch.zeros(1)), r"shape \(2, 4\), \(1,\): TypeError"),
            ({"y": torch.zeros(2, 4)}, "unexpected keyword argument 'y'"),
            ("images", "shape str"),
        ],
    )
    def test_an_example_that_does_not_fit_is_refused(self, example, message):
        with pytest.raises(ValueError, match=message):
            derive_symmetry(Plain(), example)

    def test_only_modules(self):
        with pytest.raises(ValueError, match="must be a torch.nn.Module, got OrderedDict"):
            derive_symmetry(Plain().state_dict(), torch.zeros(2, 4))

    def test_modules_that_cannot_be_copied(self):
        network = Plain()
        network.computed = network.first.weight * 2
        with pytest.raises(ValueError, match="Plain cannot be copied"):
            derive_symmetry(network, torch.zeros(2, 4))


class TestGraphs:
    def test_branches_on_values_are_refused_with_advice(self):
        class Branch(Plain):
            def middle(self, x):
                return x.relu() if x.sum() > 0 else x

        with pytest.raises(ValueError, match=r"cannot read .* Branch .*symmetry_from_spec") as raised:
            derive_symmetry(Branch(), torch.zeros(2, 4))
        assert "\n" not in str(raised.value)

    def test_its_specification_by_hand_is_proven(self):
        class Branch(Plain):
            def middle(self, x):
                return x.relu() if x.sum() > 0 else x

        network = Branch()
        spec = {"first.weight": ("P", None), "first.bias": ("P",), "last.weight": (None, "P"), "last.bias": (None,)}
        symmetry = symmetry_from_spec(spec, network.state_dict())
        assert prove_symmetry(network, symmetry, torch.randn(2, 4)) <= 1e-10

    def test_shapes_that_depend_on_values_are_refused_with_advice(self):
        class Found(Plain):
            def middle(self, x):
                return x.relu() + x.nonzero().sum()

        with pytest.raises(ValueError, match="symmetry_from_spec"):
            derive_symmetry(Found(), torch.zeros(2, 4))

    def test_branches_on_attributes_are_fine(self):
        class Switch(Plain):
            deep = True

            def middle(self, x):
                return x.relu() if self.deep and x.shape[0] > 1 else x

        assert derive_symmetry(Switch(), torch.zeros(2, 4)).permutations == {"P1": 8}

    def test_an_operation_without_a_rule_fixes_what_it_touches_and_is_named_once(self):
        class Recurrent(nn.Module):
            def __init__(self):
                super().__init__()
                self.free, self.read = nn.Linear(4, 7), nn.Linear(7, 8)
                self.once, self.twice = nn.GRU(8, 8, batch_first=True), nn.GRU(8, 8, batch_first=True)
                self.last = nn.Linear(8, 3)

            def forward(self, x):
                return self.last(self.twice(self.once(self.read(self.free(x).relu()))[0])[0])

        network, example = Recurrent(), torch.randn(2, 5, 4)
        with pytest.warns(UserWarning, match="no rule for aten.gru.input: all axes") as told:
            symmetry = derive_symmetry(network, example)
        assert len(told) == 1
        assert symmetry.without_rule == ("aten.gru.input",)
        assert symmetry.permutations == {"P1": 7}
        assert prove_symmetry(network, symmetry, example) <= 1e-10

    def test_operations_of_extensions_fix_what_they_touch(self):
        @torch.library.custom_op("hrebasin_test::relu", mutates_args=())
        def reversed_units(x: torch.Tensor) -> torch.Tensor:
            return x.flip(1)

        reversed_units.register_fake(lambda x: torch.empty_like(x))

        class Custom(Plain):
            def middle(self, x):
                return reversed_units(x)

        with pytest.warns(UserWarning, match="hrebasin_test.relu"):
            assert derive_symmetry(Custom(), torch.zeros(2, 4)).permutations == {}

    def test_operations_that_only_change_their_input_fix_it(self):
        @torch.library.custom_op("hrebasin_test::mark_first", mutates_args=("x",))
        def mark_first(x: torch.Tensor) -> None:
            x[:, 0] = 1

        class Marked(Plain):
            def middle(self, x):
                x = x.relu()
                mark_first(x)
                return x

        with pytest.warns(UserWarning, match="mark_first"):
            assert derive_symmetry(Marked(), torch.zeros(2, 4)).permutations == {}

    def test_random_numbers_fix_what_they_touch(self):
        class Noisy(Plain):
            def middle(self, x):
                return x + torch.rand_like(x)

        with pytest.warns(UserWarning, match="rand_like"):
            symmetry = derive_symmetry(Noisy(), torch.zeros(2, 4))
        assert symmetry.permutations == {}
        with pytest.raises(ValueError, match="differ between two runs"):
            prove_symmetry(Noisy(), symmetry, torch.randn(2, 4))
