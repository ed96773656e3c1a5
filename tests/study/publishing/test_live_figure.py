"""The figure that reacts shows what the drawn one does."""

import json

from matplotlib.figure import Figure

from hrebasin.study.publishing.live_figure import live_figure


def chart() -> Figure:
    figure = Figure()
    for axes in figure.subplots(2, 1, sharex=True):
        axes.plot([1, 2], [40, 30], color="#0072B2", label="tree")
        axes.vlines([1, 2], [38, 29], [42, 31.5], color="#0072B2")
        axes.plot([1, 2], [20, 10], color="#D55E00", label="</script>")
    axes.set(xlabel="test accuracy (%)", ylabel="right (%)")
    return figure


def test_curves_values_and_colours_are_those_drawn():
    live = live_figure(chart())
    assert live["names"] == [{"name": "tree", "colour": "#0072b2"}, {"name": "</script>", "colour": "#d55e00"}]
    text = json.dumps(json.loads(live["figure"]))
    assert '"told", ["40.0 (38.0 to 42.0)", "30.0 (29.0 to 31.5)"]' in text
    assert '"x", [1.0, 2.0]' in text
    assert text.count('"tags": [1]') == 2 * 3  # line, points and intervals of a curve in both panels


def test_it_is_drawn_alike_again_and_ends_no_script_early():
    first, again = live_figure(chart()), live_figure(chart())
    assert first == again
    assert "</script" not in first["figure"] + first["script"]
