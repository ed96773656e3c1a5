"""What the tour draws: one attacked image, the plane through three networks, and the tree."""

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from hrebasin import Bank, attack, evaluate, match_weights, merge_all
from hrebasin.study.figures.style import COLOURS
from hrebasin.study.tour.attacked_image import closeup, first_correct
from hrebasin.study.tour.landscape import landscape
from hrebasin.study.tour.plots import draw_closeup, draw_landscape, draw_tree


@pytest.fixture(scope="module")
def few(trained):
    return trained.select([0, 1, 2])


@pytest.fixture(scope="module")
def merged(trained):
    return merge_all(trained.select(slice(4)))


@pytest.fixture(scope="module")
def corners(trained):
    first, second = trained.select([0]), trained.select([1])
    return [first, second, match_weights(first, second).apply(second)]


@pytest.fixture(scope="module")
def around(corners, test_images):
    return landscape(*corners[:2], test_images, resolution=9)


def words(figure):
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    labels = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    return texts + labels + [axes.get_title() + axes.get_title("left") for axes in figure.axes]


def test_the_first_image_that_all_classify_correctly_is_found(few, test_images):
    right = (few(test_images.pixels).argmax(-1) == test_images.labels).all(0)
    position = first_correct(few, test_images)
    assert right[position]
    assert not right[:position].any()
    last = list(few.architecture.layers)[-1]
    biases = torch.eye(few.architecture.n_classes)[:3] * 1e6  # each always answers with another class
    stubborn = Bank(few.architecture, few.tensors | {f"{last}.bias": biases})
    with pytest.raises(ValueError, match="no image of 60 is classified correctly by all 3 networks"):
        first_correct(stubborn, test_images)


def test_pixels_move_by_epsilon_and_answers_are_those_of_the_attack_on_all_images(few, test_images):
    epsilon, n, held = 0.1, 12, np.zeros(3)
    given = test_images.pixels[:n], test_images.labels[:n]
    robust = attack(few, *given, kind="fgsm", epsilons=[epsilon]).robust_accuracy
    for position in range(n):
        shown = closeup(few, test_images, position, epsilon=epsilon)
        held += shown.probability.sel(state="after").argmax("class").values == int(test_images.labels[position])
    np.testing.assert_allclose(held / n, robust.sel(epsilon=epsilon))
    assert 0 < held.sum() < 3 * n
    change = shown.attacked - shown.original
    inside = (shown.original > epsilon) & (shown.original < 1 - epsilon)
    np.testing.assert_allclose(np.abs(change.where(inside)).max("model"), epsilon * inside.where(inside), atol=1e-6)
    assert float(np.abs(change).max()) <= epsilon + 1e-6
    assert not np.allclose(change[0], change[1]), "each network has its own perturbation"
    np.testing.assert_allclose(shown.probability.sum("class"), 1, rtol=1e-5)


def test_the_plane_keeps_distances_and_holds_the_losses_of_the_networks_on_it(corners, test_images, around):
    vectors = [torch.cat([t.flatten() for t in bank.tensors.values()]).double() for bank in corners]
    places = around.place.values
    for i, j in ((0, 1), (0, 2), (1, 2)):
        np.testing.assert_allclose(np.linalg.norm(places[i] - places[j]), (vectors[i] - vectors[j]).norm(), rtol=1e-6)
    first, second, matched = (bank.tensors for bank in corners)
    sides = np.stack([around.place.sel(corner=name) for name in ("second", "second, matched")], 1)
    for row, column in ((0, 0), (4, 3), (-1, -1)):
        b, c = np.linalg.solve(sides, [around.x.values[column], around.y.values[row]])
        tensors = {name: first[name] * (1 - b - c) + second[name] * b + matched[name] * c for name in first}
        expected = evaluate(Bank(corners[0].architecture, tensors), test_images).loss.item()
        assert around.loss.values[row, column] == pytest.approx(expected, rel=1e-4)
    ends = evaluate(Bank.concat(corners), test_images)
    np.testing.assert_allclose(around.line_loss.sel({"lambda": 0}), ends.loss[0], rtol=1e-5)
    np.testing.assert_allclose(around.line_loss.sel({"lambda": 1}), ends.loss[1], rtol=1e-4)  # the same answers
    middle = around.line_loss.sel({"lambda": 0.5})
    assert middle.sel(alignment="after") < middle.sel(alignment="before")


def test_what_cannot_be_shown_is_refused(few, test_images):
    first, others = few.select([0]), few.select([1, 2])
    for call, message in (
        (lambda: landscape(first, first, test_images), "no plane: the networks are equal"),
        (lambda: landscape(first, others, test_images), "one network and another, got 1 and 2"),
        (lambda: closeup(few, test_images, 60, epsilon=0.1), "position 60 is not among the 60 images"),
        (lambda: closeup(few, test_images, -1, epsilon=0.1), "position -1"),
        (lambda: closeup(few, test_images, 0, epsilon=1.5), r"epsilon must lie in \[0, 1\], got 1.5"),
        (lambda: closeup(few, test_images, 0, epsilon=float("nan")), "got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_map_and_the_tree_show_what_was_measured(around, merged, test_images):
    figure = draw_landscape(around, n_classes=4)
    assert {"first", "second", "second, matched", "guessing among 4"} <= set(words(figure))
    drawn = {line.get_color(): line.get_ydata() for line in figure.axes[1].lines if len(line.get_ydata()) == 21}
    np.testing.assert_allclose(drawn[COLOURS["naive"]], around.line_loss.sel(alignment="before"))
    np.testing.assert_allclose(drawn[COLOURS["tree"]], around.line_loss.sel(alignment="after"))
    scores = evaluate(merged, test_images)
    figure = draw_tree(scores, chance=0.25)
    spots = [line.get_ydata()[0] for line in figure.axes[0].lines if len(np.atleast_1d(line.get_xdata())) == 1]
    shown = np.isin(scores.method.values, ["unmerged", "tree"]) | (scores.n_merged.values == 4)
    np.testing.assert_allclose(sorted(spots), sorted(100 * scores.accuracy.values[shown]))
    assert {"network 1", "network 4", "MergeMany\nof 4", "naive average\nof 4", "chance"} <= set(words(figure))
    data, _ = InteractiveShell.instance().display_formatter.format(figure)
    assert data["image/png"].startswith(b"\x89PNG"), "notebooks show figures"


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_the_closeup_says_what_each_network_answers(merged, test_images, epsilon):
    stages = Bank.concat([merged.select([0]), merged.where(method="tree", node=0)])
    shown = closeup(stages, test_images, 3, epsilon=epsilon)
    figure, said = draw_closeup(shown), []
    for state in ("before", "after"):
        said.append(shown["class"].values[shown.probability.sel(state=state).argmax("class").values])
    for before, after in zip(*said, strict=True):
        assert f"answer: {f'still {after}' if before == after else f'{before} becomes {after}'}" in words(figure)
    original, change = (figure.axes[column].images[0].get_array() for column in (0, 1))
    np.testing.assert_allclose(original, shown.original.transpose("y", "x", "channel"))
    np.testing.assert_allclose(np.abs(change - 0.5).max(), 0.25 if epsilon else 0, atol=1e-6)
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == ["one network", "tree of 2", "tree of 4"]
