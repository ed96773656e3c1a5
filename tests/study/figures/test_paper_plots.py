import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import synthetic
from hrebasin.study.figures import FIGURES, registry, style
from hrebasin.study.figures.legibility import outside
from hrebasin.study.figures.registry import draw
from hrebasin.study.figures.style import COLOURS, STAGE_COLOURS, save


@pytest.fixture(scope="module", params=[8, 1], ids=["8 groups", "1 group"])
def results(request):
    return synthetic.results(groups=request.param)


@pytest.fixture(scope="module")
def drawn(results):
    return {name: draw(name, results) for name in FIGURES}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_tells_n(name, drawn, results):
    figure = drawn[name]
    assert type(figure) is Figure
    groups = len(set(results["merge"].group.values))
    (legend,) = figure.legends
    assert f"n = {groups} group" in legend.get_title().get_text()
    assert ("no interval" in legend.get_title().get_text()) == (groups == 1)


@pytest.mark.parametrize("name", FIGURES)
def test_legends_cover_no_data(name, drawn):
    figure = drawn[name]
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent(renderer)
    for axes in figure.axes:
        assert axes.get_legend() is None
        extent = axes.get_tightbbox(renderer)
        assert extent.y0 >= legend.y1 - 1


def test_saving_twice_gives_the_same_bytes_and_fonts_are_embedded(tmp_path, results):
    first = save(draw("fig1_accuracy", results), tmp_path / "a" / "fig", source="test data")
    second = save(draw("fig1_accuracy", results), tmp_path / "b" / "fig", source="test data")
    assert [path.name for path in first] == ["fig.pdf", "fig.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    pdf = first[0].read_bytes()
    assert b"/CIDFontType2" in pdf or b"/TrueType" in pdf
    assert b"CreationDate" not in pdf
    assert b"(test data)" in pdf
    assert image.imread(first[1]).shape[1] == pytest.approx(85 / 25.4 * 300, abs=2)


def test_drawing_leaves_the_sessions_style_alone(results):
    before = dict(matplotlib.rcParams)
    draw("fig5_barriers", results)
    assert dict(matplotlib.rcParams) == before


def test_drawing_leaves_the_data_alone(results):
    merge = results["merge"].copy(deep=True)
    draw("fig1_accuracy", results)
    assert merge.identical(results["merge"])


def test_colours_differ_between_methods_and_between_stages_in_grey():
    assert len(set(COLOURS.values())) == len(COLOURS)
    lightness = [np.dot(matplotlib.colors.to_rgb(colour), [0.299, 0.587, 0.114]) for colour in STAGE_COLOURS]
    assert all(later - earlier > 0.1 for earlier, later in zip(lightness[:-1], lightness[1:], strict=True))


def test_a_method_keeps_its_colour_in_every_figure(drawn):
    accuracy, robust = drawn["fig1_accuracy"], drawn["fig2_robust_accuracy"]
    for figure, label in ((accuracy, "MergeMany, converged"), (robust, "MergeMany")):
        (line,) = [line for line in figure.axes[0].lines if line.get_label().startswith(label)]
        assert line.get_color() == COLOURS["merge-many"]


def test_all_figures_are_drawn_whose_data_sets_are_there(tmp_path):
    merge = {"merge": synthetic.results(groups=2, leaves=4, stages=["merge"])["merge"]}
    assert list(registry.draw_all(merge, tmp_path)) == ["fig1_accuracy"]
    files = {f"fig1_accuracy.{ending}" for ending in ("pdf", "png", "md")}
    assert {path.name for path in tmp_path.iterdir()} == {*files, "SHA256SUMS"}


def test_figures_name_the_data_sets_that_they_were_drawn_from(tmp_path):
    merge = synthetic.results(groups=2, leaves=4, stages=["merge"])["merge"]
    origin = {"created": "2026-01-02", "code_commit": "0123456789abcdef", "code_changed": 1}
    registry.draw_all({"merge": merge.assign_attrs(origin, data_digest='{"test": "42"}')}, tmp_path)
    named = "merge.nc of setting synthetic, made 2026-01-02 by commit 0123456789ab and changes to it"
    named += " from synthetic images, test 42"
    with Image.open(tmp_path / "fig1_accuracy.png") as png:
        assert png.info["Description"] == named
    assert f"/Subject ({named})".encode() in (tmp_path / "fig1_accuracy.pdf").read_bytes()


def test_small_trees_can_be_drawn():
    small = synthetic.results(groups=2, leaves=4)
    assert all(draw(name, small).axes for name in FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_captions_name_groups_data_and_interval(name, results):
    text = registry.caption(name, results)
    groups = len(set(results["merge"].group.values))
    assert f"n = {groups} group" in text
    assert ("studentised bootstrap" if groups > 1 else "no interval") in text
    assert "synthetic images" in text


def test_titles_say_what_is_planted():
    made = synthetic.results(groups=8, noise=0.1, stages=("merge", "attack", "regularity", "ablations"))
    told = {name: registry.headline(name, made) for name in registry.drawable(made)}
    assert told["fig1_accuracy"] == (
        "The tree is more accurate than MergeMany after one sweep and more accurate than converged MergeMany."
    )
    assert told["fig2_robust_accuracy"] == (
        "Unmerged networks lead under weak FGSM, stage 4 leads under strong; the curves cross at 0.010."
    )
    assert told["fig3_weight_norm"].startswith("The weight norm falls at every stage; the last step is ")
    assert told["fig4_lipschitz"] == "All upper bounds fall at every stage, and the lower bound does too."
    assert "6.0 points of accuracy are lost after matching, 30.0 without" in told["fig5_barriers"]
    assert "is more accurate than unmerged networks and keeps more" in told["fig7_noise"]
    assert "The test loss has no barrier" not in registry.caption("fig5_barriers", made)  # planted: it has one


def test_titles_of_one_tree_resolve_nothing_and_all_end_with_a_full_stop():
    made = synthetic.results(groups=1)
    told = {name: registry.headline(name, made) for name in registry.drawable(made)}
    assert all(text.endswith(".") for text in told.values() if text)
    assert "not resolved" in told["fig1_accuracy"]
    assert told["fig2_robust_accuracy"] == "No lead is resolved under weak or strong FGSM."
    assert "not resolved" in told["fig7_noise"]


def test_titles_are_left_out_where_data_tell_nothing():
    merge = synthetic.results(groups=2, stages=("merge",))["merge"]
    alone = merge.isel(model=(merge.method != "merge-many").values)
    assert registry.headline("fig1_accuracy", {"merge": alone}) == ""
    assert draw("fig1_accuracy", {"merge": alone}).get_suptitle() == ""


def test_the_difference_of_versions_is_a_table(tmp_path):
    versions = {"versions": synthetic.results(groups=3, stages=("versions",))["versions"]}
    [table] = registry.tabulate_all(versions, tmp_path).values()
    assert table.heads[:2] == ["", "FGSM, 0"]
    assert [row[0] for row in table.rows] == [f"stage {stage}" for stage in range(5)]
    assert all(cell.startswith("+1.0 (1.0 to 1.0)") for row in table.rows for cell in row[1:])  # planted: a point
    assert (tmp_path / "table1_versions.md").read_text() == table.markdown()


def test_a_label_that_leaves_a_figure_is_named():
    figure = Figure((4, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel("a label (1)")
    assert outside(figure) == []
    axes.text(0, 0, "in the panel")
    figure.text(0.9, 0.5, "far too long a text")
    assert outside(figure) == ["far too long a text"]


def test_a_caption_of_no_figure_is_refused(results):
    with pytest.raises(ValueError, match="no figure 'fig0'"):
        registry.caption("fig0", results)


def test_early_stopped_networks_are_no_method_of_merging():
    data = xr.Dataset(coords={"method": ("model", np.array(["tree", "stopped", "naive"], dtype=object))})
    assert style.added_methods(data) == {}
    assert list(style.added_methods(data.assign_coords(method=("model", ["tree", "star", "stopped"])))) == ["star"]
