from matplotlib.figure import Figure

from hrebasin.study.figures.alt_text import alt_text, curve_values


def test_intervals_are_those_of_the_curves_own_colour_and_rows_have_their_names():
    figure = Figure()
    axes, named = figure.subplots(2, 1, sharex=True)
    axes.plot([0, 1], [2, 3], color="#0072B2", label="band")
    axes.fill_between([0, 1], [1, 2], [3, 4.5], color="#0072B2", alpha=0.2)
    axes.plot([0, 1], [2.5, 3], color="#D55E00", label="bars")
    axes.vlines(0, 2.25, 2.75, color="#D55E00")
    named.plot([3.0, 5.0], [1, 0], "o", label="gain")
    named.set_yticks([1, 0], ["Adam", "SGD"])
    axes.set(ylabel="loss\n(nat)", title="FGSM")
    named.set(xlabel="size (1)", ylabel="gain (1)")
    assert alt_text(figure) == "Chart of 2 panels: loss (nat), gain (1) by size (1). Shown: band; bars; gain."
    told = {row["curve"]: (row["left"], row["right"]) for row in curve_values(figure)}
    assert told["band"] == ("2.0 (1.0 to 3.0)", "3.0 (2.0 to 4.5)")
    assert told["bars"] == ("2.50 (2.25 to 2.75)", "3")
    assert (told["gain, Adam"][0], told["gain, SGD"][0]) == ("3", "5")
