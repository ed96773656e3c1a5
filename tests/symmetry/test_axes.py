import numpy as np
import pytest
import torch

from hrebasin.symmetry import Factor, Place, Symmetry, axis_size, compose, inverse, simplify

P, Q, R = Factor("P", 3), Factor("Q", 4), Factor("R", 2)


def fixed(size):
    return Factor(None, size)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def symmetry():
    return Symmetry(
        {"P": 3, "Q": 4},
        {
            "first.weight": (((P,),), ((fixed(5),),)),
            "first.bias": (((P,),),),
            "mixed": (((P, fixed(2)), (Q,), (fixed(1),)), ((Q, P),)),
            "square": (((P,),), ((P,),)),
            "counter": (),
        },
    )


@pytest.fixture
def tensors(symmetry):
    shapes = {name: tuple(map(axis_size, axes)) for name, axes in symmetry.axes.items()}
    return {name: torch.randn(shape, generator=stream(1)) for name, shape in shapes.items()}


def order_by_hand(axis, permutations):
    """The order of an axis, with NumPy arrays of positions."""
    pieces, start = [], 0
    for segment in axis:
        sizes = [factor.size for factor in segment]
        positions = np.arange(int(np.prod(sizes))).reshape(sizes)
        for dimension, factor in enumerate(segment):
            if factor.name is not None:
                positions = positions.take(permutations[factor.name].numpy(), axis=dimension)
        pieces.append(positions.reshape(-1) + start)
        start += positions.size
    return np.concatenate(pieces)


class TestAxes:
    def test_size(self):
        assert axis_size(((P, fixed(2)), (Q,))) == 10

    @pytest.mark.parametrize(
        ("axis", "expected"),
        [
            (((fixed(2),), (fixed(3),)), ((fixed(5),),)),
            (((fixed(2), fixed(3)),), ((fixed(6),),)),
            (((P, fixed(1)),), ((P,),)),
            (((P,), (P,)), ((fixed(2), P),)),
            (((fixed(2), P), (P,), (Q,)), ((fixed(3), P), (Q,))),
            (((P, fixed(2), fixed(3)),), ((P, fixed(6)),)),
            (((P,), (Q,)), ((P,), (Q,))),
            (((fixed(0),),), ((fixed(0),),)),
        ],
    )
    def test_shortest_form(self, axis, expected):
        assert simplify(axis) == expected
        assert simplify(expected) == expected
        assert axis_size(expected) == axis_size(axis)

    @pytest.mark.parametrize("axis", [((P,),), ((fixed(7),),), ((P, Q),), ((Q, fixed(5), P), (fixed(2),), (P,), (R,))])
    def test_order(self, axis):
        sizes = {"P": 3, "Q": 4, "R": 2}
        symmetry = Symmetry(sizes, {"t": (axis,)})
        permutations = symmetry.random_permutations(stream())
        order = symmetry.expand(axis, permutations)
        np.testing.assert_array_equal(order, order_by_hand(axis, permutations))
        assert order.dtype == torch.int64
        several = [symmetry.random_permutations(stream(seed)) for seed in range(3)]
        stacked = {name: torch.stack([perms[name] for perms in several]) for name in sizes}
        assert torch.equal(
            symmetry.expand(axis, stacked), torch.stack([symmetry.expand(axis, perms) for perms in several])
        )


class TestApply:
    def test_one_network(self, symmetry, tensors):
        permutations = symmetry.random_permutations(stream())
        permuted = symmetry.apply(tensors, permutations)
        for name, tensor in tensors.items():
            expected = tensor.numpy()
            for dimension, axis in enumerate(symmetry.axes[name]):
                expected = expected.take(order_by_hand(axis, permutations), axis=dimension)
            np.testing.assert_array_equal(permuted[name], expected)

    def test_several_networks_are_permuted_each_by_its_own(self, symmetry, tensors):
        several = [symmetry.random_permutations(stream(seed)) for seed in range(3)]
        stacked = {name: torch.stack([perms[name] for perms in several]) for name in symmetry.permutations}
        banks = {name: torch.stack([tensor * scale for scale in (1, 2, 3)]) for name, tensor in tensors.items()}
        permuted = symmetry.apply(banks, stacked)
        for k, permutations in enumerate(several):
            single = symmetry.apply({name: tensor[k] for name, tensor in banks.items()}, permutations)
            assert all(torch.equal(permuted[name][k], tensor) for name, tensor in single.items())

    def test_the_given_tensors_stay(self, symmetry, tensors):
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        permutations = symmetry.random_permutations(stream())
        given = {name: perm.clone() for name, perm in permutations.items()}
        symmetry.apply(tensors, permutations)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in before.items())
        assert all(torch.equal(permutations[name], perm) for name, perm in given.items())

    def test_inverse_and_composition(self, symmetry, tensors):
        first, then = (symmetry.random_permutations(stream(seed)) for seed in (2, 3))
        once = symmetry.apply(tensors, first)
        back = symmetry.apply(once, inverse(first))
        twice, composed = symmetry.apply(once, then), symmetry.apply(tensors, compose(first, then))
        for name, tensor in tensors.items():
            assert torch.equal(back[name], tensor)
            assert torch.equal(twice[name], composed[name])

    def test_permutations_left_out_do_not_move(self, symmetry, tensors):
        permutations = symmetry.random_permutations(stream())
        partial = symmetry.apply(tensors, {"Q": permutations["Q"]})
        assert partial["first.weight"] is tensors["first.weight"]
        full = symmetry.apply(tensors, {"P": torch.arange(3), "Q": permutations["Q"]})
        assert all(torch.equal(partial[name], full[name]) for name in tensors)

    def test_seeds(self, symmetry):
        same, again, other = (symmetry.random_permutations(stream(seed)) for seed in (4, 4, 5))
        assert all(torch.equal(same[name], again[name]) for name in same)
        assert any(not torch.equal(same[name], other[name]) for name in same)

    @pytest.mark.parametrize(
        ("permutations", "message"),
        [
            ({"X": torch.arange(3)}, "no permutation 'X'"),
            ({"P": torch.arange(4)}, r"'P' must be int64 of shape \(3,\)"),
            ({"P": torch.arange(3.0)}, "got torch.float32"),
            ({"P": torch.tensor([0, 0, 2])}, "every unit from 0 to 2 once"),
            ({"P": torch.arange(3).expand(2, 3), "Q": torch.arange(4).expand(3, 4)}, "different numbers of networks"),
        ],
    )
    def test_wrong_permutations(self, symmetry, tensors, permutations, message):
        with pytest.raises(ValueError, match=message):
            symmetry.apply(tensors, permutations)

    def test_wrong_tensors(self, symmetry):
        with pytest.raises(ValueError, match="'other' is not in the symmetry"):
            symmetry.apply({"other": torch.zeros(3)}, {})
        with pytest.raises(ValueError, match=r"'first.bias' must have shape \(3,\), got \(4,\)"):
            symmetry.apply({"first.bias": torch.zeros(4)}, {})
        with pytest.raises(ValueError, match="for every network"):
            symmetry.apply({"first.bias": torch.zeros(3)}, {"P": torch.arange(3)[None]})


class TestData:
    def test_places(self, symmetry):
        assert symmetry.places() == {
            "P": (
                Place("first.weight", 0, 0, 0),
                Place("first.bias", 0, 0, 0),
                Place("mixed", 0, 0, 0),
                Place("mixed", 1, 0, 1),
                Place("square", 0, 0, 0),
                Place("square", 1, 0, 0),
            ),
            "Q": (Place("mixed", 0, 1, 0), Place("mixed", 1, 0, 0)),
        }

    def test_a_factor_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match="axis 0 of 't' has 3 units of 'P'"):
            Symmetry({"P": 4}, {"t": (((P,),),)})
        with pytest.raises(ValueError, match="'P'"):
            Symmetry({}, {"t": (((P,),),)})

    def test_text_and_files(self, symmetry, tmp_path):
        told = Symmetry(symmetry.permutations, symmetry.axes, ("aten.lstm.input",))
        assert Symmetry.from_json(told.to_json()) == told
        told.save(tmp_path / "symmetry.json")
        assert Symmetry.load(tmp_path / "symmetry.json") == told

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"permutations": {}, "axes": {"t": [[["P"]]]}, "without_rule": []}', '{"permutations": 3}'],
    )
    def test_other_text_is_refused(self, text):
        with pytest.raises(ValueError, match="no symmetry"):
            Symmetry.from_json(text)

    def test_agreement_does_not_depend_on_names_or_on_how_it_is_written(self, symmetry):
        def renamed(names, axes):
            return {
                name: tuple(tuple(tuple(Factor(names.get(f.name), f.size) for f in s) for s in a) for a in of_tensor)
                for name, of_tensor in axes.items()
            }

        other = Symmetry({"Q": 3, "P": 4}, renamed({"P": "Q", "Q": "P"}, symmetry.axes))
        assert symmetry.agrees_with(other)
        assert other.agrees_with(symmetry)
        longer = {**symmetry.axes, "first.weight": (((fixed(1), P),), ((fixed(2),), (fixed(3),)))}
        assert symmetry.agrees_with(Symmetry(symmetry.permutations, longer))

    def test_disagreement(self):
        def of(*axes, **sizes):
            return Symmetry(sizes, dict(enumerate(axes)))

        p, q, s = ((P,),), ((Factor("Q", 3),),), ((fixed(3),),)
        assert not of((p, q), P=3, Q=3).agrees_with(of((p, p), P=3))
        assert not of((p, p), P=3).agrees_with(of((p, q), P=3, Q=3))
        assert not of((p,), P=3).agrees_with(of((s,)))
        assert not of((p,), P=3).agrees_with(of((p,), (p,), P=3))
        assert not of((((P, Q),),), P=3, Q=4).agrees_with(of((((Q, P),),), P=3, Q=4))

    def test_table(self, symmetry):
        assert str(symmetry).splitlines() == [
            "2 permutations: P (3), Q (4)",
            "first.weight  (P, fixed)",
            "first.bias    (P)",
            "mixed         (P x 2 fixed | Q | 1 fixed, Q x P)",
            "square        (P, P)",
        ]

    def test_table_of_a_long_model(self):
        axes = {f"{k}.{name}": (((P,),),) for k in range(50) for name in ("weight", "bias")}
        lines = Symmetry({"P": 3}, axes).table(max_rows=4).splitlines()
        assert lines[1] == "0.{weight, bias}   (P)"
        assert lines[3].split() == ["...", "46", "more"]
        assert lines[-1] == "49.{weight, bias}  (P)"
        assert len(lines) == 6
