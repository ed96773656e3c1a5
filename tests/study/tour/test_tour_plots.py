import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

from hrebasin import Bank, evaluate, merge_all
from hrebasin.study.figures.style import COLOURS
from hrebasin.study.tour.attacked_image import closeup
from hrebasin.study.tour.landscape import landscape
from hrebasin.study.tour.plots import draw_closeup, draw_landscape, draw_tree


@pytest.fixture(scope="module")
def merged(trained):
    return merge_all(trained.select(slice(4)))


def words(figure):
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    labels = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    return texts + labels + [axes.get_title() + axes.get_title("left") for axes in figure.axes]


def test_the_map_shows_three_networks_two_lines_and_their_averages(trained, test_images):
    around = landscape(trained.select([0]), trained.select([1]), test_images, resolution=7, lambdas=[0, 0.5, 1])
    figure = draw_landscape(around, n_classes=4)
    plane, line = figure.axes[:2]
    assert {"first", "second", "second, matched", "guessing among 4"} <= set(words(figure))
    drawn = {line.get_color(): line.get_ydata() for line in line.lines if len(line.get_ydata()) == 3}
    np.testing.assert_allclose(drawn[COLOURS["naive"]], around.line_loss.sel(alignment="before"))
    np.testing.assert_allclose(drawn[COLOURS["tree"]], around.line_loss.sel(alignment="after"))
    middle = around.place.sel(corner=["first", "second"]).mean("corner").values
    spots = [np.ravel(spot.get_xydata()) for spot in plane.lines if len(spot.get_xydata()) == 1]
    assert any(np.allclose(spot, middle) for spot in spots)


def test_every_node_of_the_tree_stands_at_its_accuracy(merged, test_images):
    scores = evaluate(merged, test_images)
    figure = draw_tree(scores, chance=0.25)
    spots = [line.get_ydata()[0] for line in figure.axes[0].lines if len(np.atleast_1d(line.get_xdata())) == 1]
    shown = np.isin(scores.method.values, ["unmerged", "tree"]) | (scores.n_merged.values == 4)
    np.testing.assert_allclose(sorted(spots), sorted(100 * scores.accuracy.values[shown]))
    assert {"network 1", "network 4", "MergeMany\nof 4", "naive average\nof 4", "chance"} <= set(words(figure))
    edges = [line for line in figure.axes[0].lines if line.get_color() == "#8A8A8A" and line.get_linewidth() == 1]
    assert len(edges) == 6, "each of 4 leaves and 2 nodes has a parent"


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_the_closeup_says_what_each_network_answers(merged, test_images, epsilon):
    stages = Bank.concat([merged.select([0]), merged.where(method="tree", node=0)])
    shown = closeup(stages, test_images, 3, epsilon=epsilon)
    figure = draw_closeup(shown)
    assert len(figure.axes) == 12
    answers = [
        [str(shown["class"].values[i]) for i in shown.probability.sel(state=state).argmax("class").values]
        for state in ("before", "after")
    ]
    for before, after in zip(*answers, strict=True):
        assert f"answer: {'still ' + after if before == after else f'{before} becomes {after}'}" in words(figure)
    original, change = (figure.axes[column].images[0].get_array() for column in (0, 1))
    np.testing.assert_allclose(original, shown.original.transpose("y", "x", "channel"))
    np.testing.assert_allclose(np.abs(change - 0.5).max(), 0.25 if epsilon else 0, atol=1e-6)
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == ["one network", "tree of 2", "tree of 4"]


def test_notebooks_show_figures(merged, test_images):
    data, _ = InteractiveShell.instance().display_formatter.format(
        draw_tree(evaluate(merged, test_images), chance=0.25)
    )
    assert data["image/png"].startswith(b"\x89PNG")
