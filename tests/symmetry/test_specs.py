import pytest
import torch

from hrebasin.symmetry import Factor, symmetry_from_spec


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
def test_what_does_not_fit_is_named(spec, message):
    with pytest.raises(ValueError, match=message):
        symmetry_from_spec(spec, {"w": (4, 6), "b": (4,)})
