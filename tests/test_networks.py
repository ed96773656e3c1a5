import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrebasin.networks import Architecture, mlp, permutation_spec
from hrebasin.random_streams import generator


def forward_by_hand(network, pixels):
    """The network in float64 NumPy, written from its definition."""
    architecture = network.architecture
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    mean, std = (np.reshape(v, (1, -1, 1, 1)) for v in (architecture.mean, architecture.std))
    x = ((pixels.double().numpy() - mean) / std).reshape(len(pixels), -1)
    for number in range(1, len(architecture.widths) + 2):
        if number > 1:
            x = np.maximum(x, 0)
        x = x @ state[f"fc{number}.weight"].T + state[f"fc{number}.bias"]
    return x


@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    image_shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    n_classes=st.integers(2, 5),
)
def test_forward_equals_numpy_and_weights_are_the_only_state(widths, image_shape, n_classes):
    channels = image_shape[0]
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels]
    network = mlp(widths, n_classes=n_classes, image_shape=image_shape, mean=mean, std=std)
    pixels = torch.rand(5, *image_shape, generator=generator("test/pixels"))
    with torch.no_grad():
        np.testing.assert_allclose(network(pixels), forward_by_hand(network, pixels), rtol=1e-5, atol=1e-5)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == network.architecture.shapes
    assert sum(p.numel() for p in network.parameters()) == network.architecture.n_parameters


def test_permutation_spec_is_exact():
    expected = {
        "fc1.weight": ("P1", None), "fc1.bias": ("P1",),
        "fc2.weight": ("P2", "P1"), "fc2.bias": ("P2",),
        "fc3.weight": (None, "P2"), "fc3.bias": (None,),
    }  # fmt: skip
    assert permutation_spec(Architecture((6, 5), n_classes=3)) == expected


def test_the_papers_architecture_and_lists_that_become_tuples():
    assert Architecture().units == (3072, 512, 512, 256, 10)
    given = {"widths": [8], "n_classes": 3, "image_shape": [1, 2, 2], "mean": [0.5], "std": [0.25]}
    architecture = Architecture(**given)
    assert architecture == Architecture(**architecture.as_dict())
    assert hash(architecture) == hash(Architecture((8,), 3, (1, 2, 2), (0.5,), (0.25,)))


def test_pixel_scale_is_the_slope_of_the_normalisation():
    architecture = Architecture((4,), 3, (3, 2, 2), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    normalize = mlp(**architecture.as_dict()).normalize
    pixels = torch.rand(1, 3, 2, 2, generator=generator("test/pixels"))
    jacobian = torch.autograd.functional.jacobian(normalize, pixels).reshape(12, 12).double()
    assert torch.allclose(jacobian, torch.diag(architecture.pixel_scale()), rtol=1e-6)
