import numpy as np
import pytest
import torch

from hrebasin.symmetry import Factor, Symmetry, axis_size, inverse, simplify, symmetry_from_spec

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
def test_the_shortest_form(axis, expected):
    assert simplify(axis) == expected == simplify(expected)
    assert axis_size(expected) == axis_size(axis) == sum(int(np.prod([f.size for f in part])) for part in axis)


@pytest.mark.parametrize("axis", [((P,),), ((fixed(7),),), ((P, Q),), ((Q, fixed(5), P), (fixed(2),), (P,), (R,))])
def test_orders_of_an_axis(axis):
    symmetry = Symmetry({"P": 3, "Q": 4, "R": 2}, {"t": (axis,)})
    several = [symmetry.random_permutations(stream(seed)) for seed in range(3)]
    orders = [symmetry.expand(axis, permutations) for permutations in several]
    for order, permutations in zip(orders, several, strict=True):
        np.testing.assert_array_equal(order, order_by_hand(axis, permutations))
    stacked = {name: torch.stack([each[name] for each in several]) for name in symmetry.permutations}
    assert torch.equal(symmetry.expand(axis, stacked), torch.stack(orders))


def test_tensors_of_one_and_of_several_networks_are_permuted_as_by_hand(symmetry, tensors):
    several = [symmetry.random_permutations(stream(seed)) for seed in range(3)]
    stacked = {name: torch.stack([each[name] for each in several]) for name in symmetry.permutations}
    banks = {name: torch.stack([tensor * scale for scale in (1, 2, 3)]) for name, tensor in tensors.items()}
    given = {name: tensor.clone() for name, tensor in {**banks, **stacked}.items()}
    permuted = symmetry.apply(banks, stacked)
    assert all(torch.equal(tensor, given[name]) for name, tensor in {**banks, **stacked}.items())
    for k, permutations in enumerate(several):
        single = symmetry.apply({name: tensor[k] for name, tensor in banks.items()}, permutations)
        for name, tensor in banks.items():
            expected = tensor[k].numpy()
            for dimension, axis in enumerate(symmetry.axes[name]):
                expected = expected.take(order_by_hand(axis, permutations), axis=dimension)
            np.testing.assert_array_equal(permuted[name][k], expected)
            np.testing.assert_array_equal(single[name], expected)


def test_the_inverse_takes_back_and_a_seed_names_the_permutations(symmetry, tensors):
    first, then = (symmetry.random_permutations(stream(seed)) for seed in (2, 3))
    back = symmetry.apply(symmetry.apply(tensors, first), inverse(first))
    torch.testing.assert_close(back, tensors, rtol=0, atol=0)
    again = symmetry.random_permutations(stream(2))
    assert all(torch.equal(perm, again[name]) for name, perm in first.items())
    assert any(not torch.equal(perm, then[name]) for name, perm in first.items())


def test_permutations_left_out_do_not_move(symmetry, tensors):
    permutations = symmetry.random_permutations(stream())
    partial = symmetry.apply(tensors, {"Q": permutations["Q"]})
    assert partial["first.weight"] is tensors["first.weight"]
    full = symmetry.apply(tensors, {"P": torch.arange(3), "Q": permutations["Q"]})
    assert all(torch.equal(partial[name], full[name]) for name in tensors)


BIAS = {"first.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    ("tensors", "permutations", "message"),
    [
        (BIAS, {"X": torch.arange(3)}, "no permutation 'X'"),
        (BIAS, {"P": torch.arange(4)}, r"'P' must be int64 of shape \(3,\)"),
        (BIAS, {"P": torch.arange(3.0)}, "got torch.float32"),
        (BIAS, {"P": torch.tensor([0, 0, 2])}, "every unit from 0 to 2 once"),
        (BIAS, {"P": torch.arange(3).expand(2, 3), "Q": torch.arange(4).expand(3, 4)}, "different numbers of networks"),
        (BIAS, {"P": torch.arange(3)[None]}, "for every network"),
        ({"other": torch.zeros(3)}, {}, "'other' is not in the symmetry"),
        ({"first.bias": torch.zeros(4)}, {}, r"'first.bias' must have shape \(3,\), got \(4,\)"),
    ],
)
def test_what_cannot_be_permuted_is_refused(symmetry, tensors, permutations, message):
    with pytest.raises(ValueError, match=message):
        symmetry.apply(tensors, permutations)


def test_a_factor_of_another_size_is_refused():
    for sizes, message in (({"P": 4}, "axis 0 of 't' has 3 units of 'P'"), ({}, "'P'")):
        with pytest.raises(ValueError, match=message):
            Symmetry(sizes, {"t": (((P,),),)})


def test_a_symmetry_is_read_from_its_text_or_file_and_from_no_other(symmetry, tmp_path):
    told = Symmetry(symmetry.permutations, symmetry.axes, ("aten.lstm.input",))
    told.save(tmp_path / "symmetry.json")
    assert Symmetry.load(tmp_path / "symmetry.json") == Symmetry.from_json(told.to_json()) == told
    broken = '{"permutations": {}, "axes": {"t": [[["P"]]]}, "without_rule": []}'
    for text in ("", "[]", "{}", broken, '{"permutations": 3}'):
        with pytest.raises(ValueError, match="no symmetry"):
            Symmetry.from_json(text)


def test_agreement_does_not_depend_on_names_or_on_how_it_is_written(symmetry):
    names = {"P": "Q", "Q": "P"}
    renamed = {
        name: tuple(tuple(tuple(Factor(names.get(f.name), f.size) for f in s) for s in a) for a in axes)
        for name, axes in symmetry.axes.items()
    }
    other = Symmetry({"Q": 3, "P": 4}, renamed)
    assert symmetry.agrees_with(other)
    assert other.agrees_with(symmetry)
    longer = {**symmetry.axes, "first.weight": (((fixed(1), P),), ((fixed(2),), (fixed(3),)))}
    assert symmetry.agrees_with(Symmetry(symmetry.permutations, longer))

    def of(*axes, **sizes):
        return Symmetry(sizes, dict(enumerate(axes)))

    p, q, s = ((P,),), ((Factor("Q", 3),),), ((fixed(3),),)
    assert not of((p, q), P=3, Q=3).agrees_with(of((p, p), P=3))
    assert not of((p, p), P=3).agrees_with(of((p, q), P=3, Q=3))
    assert not of((p,), P=3).agrees_with(of((s,)))
    assert not of((p,), P=3).agrees_with(of((p,), (p,), P=3))
    assert not of((((P, Q),),), P=3, Q=4).agrees_with(of((((Q, P),),), P=3, Q=4))


def test_tables(symmetry):
    lines = str(symmetry).splitlines()
    assert lines[0] == "2 permutations: P (3), Q (4)"
    assert lines[3] == "mixed         (P x 2 fixed | Q | 1 fixed, Q x P)"
    axes = {f"{k}.{name}": (((P,),),) for k in (0, 49) for name in ("weight", "bias")}
    lines = str(Symmetry({"P": 3}, axes)).splitlines()
    assert lines[1:] == ["0.{weight, bias}   (P)", "49.{weight, bias}  (P)"]


def test_the_classic_form_and_sizes_that_are_given():
    spec = {"fc1.weight": ("P1", None), "fc1.bias": ("P1",), "fc2.weight": (None, "P1"), "fc2.bias": (None,)}
    shapes = {"fc1.weight": (8, 4), "fc1.bias": (8,), "fc2.weight": (3, 8), "fc2.bias": (3,)}
    symmetry = symmetry_from_spec(spec, shapes)
    assert symmetry.permutations == {"P1": 8}
    assert symmetry.axes["fc2.weight"] == (((Factor(None, 3),),), ((Factor("P1", 8),),))
    given = symmetry_from_spec({"w": (("H", "U"),)}, {"w": (12,)}, sizes={"H": 3})
    assert given.permutations == {"H": 3, "U": 4}


def test_products_and_concatenations():
    spec = {
        "a": ("P1",),
        "b": ("P2",),
        "flat": (("P1", 49),),
        "dense": (["P1", "P2", 3],),
        "heads": (("H", "U"),),
        "units": ("U",),
        "mixed": ([("P1", 2), ("H", "U"), "H"],),
    }
    shapes = {"a": (4,), "b": (5,), "flat": (196,), "dense": (12,), "heads": (6,), "units": (3,), "mixed": (16,)}
    symmetry = symmetry_from_spec(spec, shapes)
    assert symmetry.permutations == {"P1": 4, "P2": 5, "H": 2, "U": 3}
    assert symmetry.axes["flat"] == (((Factor("P1", 4), Factor(None, 49)),),)
    assert symmetry.axes["dense"] == (((Factor("P1", 4),), (Factor("P2", 5),), (Factor(None, 3),)),)


def test_a_state_dict_gives_shapes_and_its_counters_may_be_left_out():
    spec = {name: ("P1",) for name in ("weight", "bias", "running_mean", "running_var")}
    symmetry = symmetry_from_spec(spec, torch.nn.BatchNorm1d(4).state_dict())
    assert symmetry.axes["num_batches_tracked"] == ()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"w": ("P", None)}, "the specification lacks 'b'"),
        ({"w": ("P", None), "b": ("P",), "c": ("P",)}, "names 'c', which the network does not have"),
        ({"w": ("P",), "b": ("P",)}, "'w' has 2 axes"),
        ({"w": ("P", "P"), "b": ("P",)}, r"axis 1 of 'w' has 6 units, but .* 4, with {'P': 4}"),
        ({"w": (("P", 3), None), "b": ("P",)}, "axis 0 of 'w' has 4 units, which leave no whole number for 'P'"),
        ({"w": (["P", 4], None), "b": ("P",)}, "axis 0 of 'w' has 4 units, which leave no whole number for 'P'"),
        ({"w": (("P", "Q"), None), "b": (("P", "Q"),)}, r"axis 0 of 'w': the sizes of \['P', 'Q'\] are not known"),
        ({"w": (1.5, None), "b": ("P",)}, "axis 0 of 'w': an entry holds names and sizes, not 1.5"),
        ({"w": (("P", 0), None), "b": ("P",)}, "axis 0 of 'w': an entry holds names and sizes, not 0"),
        ({"w": (3, None), "b": ("P",)}, "axis 0 of 'w' has 4 units, but .* has 3"),
    ],
)
def test_a_specification_that_does_not_fit_is_named(spec, message):
    with pytest.raises(ValueError, match=message):
        symmetry_from_spec(spec, {"w": (4, 6), "b": (4,)})
