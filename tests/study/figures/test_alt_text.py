from matplotlib.figure import Figure

from hrebasin.study.figures.alt_text import alt_text, curve_values


def chart() -> Figure:
    """Two panels that share the x axis, whose label and title stand at one of them."""
    figure = Figure()
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot([0, 1, 2], [3, 9, 4], label="tree")
    above.plot([0, 1], [1, 1])  # no name
    below.plot([0, 2], [0.5, 0.25], label="naive")
    above.set(title="FGSM", ylabel="accuracy (%)")
    below.set(xlabel="size (pixel range)", ylabel="loss\n(nat)")
    return figure


def test_a_figure_is_told_by_its_axes_and_curves():
    assert alt_text(chart()) == (
        "Chart of 2 panels: accuracy (%), loss (nat) by size (pixel range). Shown: tree; naive."
    )


def test_values_are_those_drawn():
    tree, naive = curve_values(chart())
    assert tree == {"panel": "accuracy (%), FGSM", "curve": "tree", "left": "3", "right": "4", "low": "3", "high": "9"}
    assert naive == {
        "panel": "loss (nat), FGSM", "curve": "naive", "left": "0.5", "right": "0.25", "low": "0.25", "high": "0.5"
    }  # fmt: skip


def test_intervals_are_those_of_the_curve_s_own_colour():
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [2, 3], color="#0072B2", label="band")
    axes.fill_between([0, 1], [1, 2], [3, 4.5], color="#0072B2", alpha=0.2)
    axes.plot([0, 1], [2.5, 3], color="#D55E00", label="bars")
    axes.vlines(0, 2.25, 2.75, color="#D55E00")
    band, bars = curve_values(figure)
    assert (band["left"], band["right"]) == ("2.0 (1.0 to 3.0)", "3.0 (2.0 to 4.5)")
    assert (bars["left"], bars["right"]) == ("2.50 (2.25 to 2.75)", "3")


def test_bars_are_called_bars():
    figure = Figure()
    axes = figure.subplots()
    axes.bar([0, 1], [1, 2], label="ratio")
    axes.set(xlabel="row", ylabel="times (1)")
    assert alt_text(figure) == "Bar chart: times (1) by row. Shown: ratio."


def test_rows_with_names_are_told_by_name_whoever_named_them():
    figure = Figure()
    axes = figure.subplots()
    axes.plot([3.0, 5.0], [1, 0], "o", label="gain")
    axes.set_yticks([1, 0], ["Adam", "SGD"])
    told = {row["curve"]: row["left"] for row in curve_values(figure)}
    assert told == {"gain, Adam": "3", "gain, SGD": "5"}
