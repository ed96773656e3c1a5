"""The README's examples run as they stand, one after the other, and do what it says of them."""

import re

import pytest

from hrebasin import plots, regularity, robustness
from hrebasin.files import project_root

ROOT = project_root()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the examples leave behind, run in a copy of the project's data folder; registries are put back after."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "data").mkdir()
    for name in ("cifar10-sample.nc", "published"):
        (folder / "data" / name).symlink_to(ROOT / "data" / name)
    left = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(robustness, "FIXED_SIZE", dict(robustness.FIXED_SIZE))
        patch.setattr(regularity, "BOUNDS", dict(regularity.BOUNDS))
        for number, code in enumerate(EXAMPLES, start=1):
            exec(compile(code, f"README.md, example {number}", "exec"), left)
        yield left


def test_there_is_an_example_for_everything_that_can_be_added(names):
    assert len(EXAMPLES) >= 6
    assert len(names["train_set"]) == 120
    assert names["train_set"].classes == ("bright", "dark")


def test_networks_of_another_architecture_learn_and_merge(names):
    from hrebasin.evaluation import accuracy

    assert names["bank"].architecture.units == (192, 24, 16, 16, 8, 2)
    assert names["bank"].labels["stage"].tolist() == [0] * 4 + [1] * 2 + [2]
    assert (accuracy(names["leaves"], names["test_set"]) > 0.8).all()


def test_an_added_attack_is_in_the_data_set_and_the_figure(names):
    attacked = names["attacked"]
    assert attacked.attack.values.tolist() == ["fgsm", "bim", "deepfool-linf", "deepfool-linf-clipped"]
    weaker = attacked.robust_accuracy.sel(attack="fgsm") >= attacked.robust_accuracy.sel(attack="bim")
    assert weaker.mean() > 0.9, "ten steps break more than one"
    assert [axes.get_title() for axes in plots.robust_accuracy(attacked).axes][1] == "bim"


def test_an_added_bound_is_in_the_data_set_and_the_figure(names):
    measured = names["measured"]
    assert measured.bound.values.tolist() == ["global", "eclipse-fast", "frobenius"]
    assert (measured.lipschitz.sel(bound="frobenius") >= measured.gradient_norm.max("image")).all()
    assert "frobenius" in plots.lipschitz(measured).axes[0].get_legend_handles_labels()[1]
