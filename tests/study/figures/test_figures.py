"""Every figure at column width: large enough, nothing on anything else, curves that stay apart for any eye."""

import re
from functools import cache
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

import synthetic
from colour_vision import VISIONS, contrast, distance, lab
from hrebasin.files import project_root
from hrebasin.study import records
from hrebasin.study.figures import FIGURES, registry, style
from hrebasin.study.figures.legibility import outside
from hrebasin.study.figures.registry import draw
from hrebasin.study.figures.style import COLOURS, STYLE, save
from hrebasin.study.publishing.places import benchmarks_file, places

ROOT = project_root()
COLUMN, PAGE = 85, 235  # mm: one column of print, and the height of its text
SMALLEST_TEXT = 6  # points
GAP = 2  # pixels at 100 dots an inch
APART = 10  # in CIELAB, for every kind of colour vision
LINE_CONTRAST, TEXT_CONTRAST = 3, 4.5  # on white, WCAG 2.2
WHITE = (1, 1, 1)


@cache
def made_up(groups: int):
    """Made-up results of so many groups, and every figure of them; tests must not change them."""
    results = synthetic.results(groups=groups)
    return results, {name: draw(name, results) for name in registry.drawable(results)}


@pytest.fixture(scope="module", params=["published", 8, 1, "benchmarks"])
def drawn(request):
    if request.param == "benchmarks":
        data = records.read(benchmarks_file(ROOT), stage="benchmarks")
        return {name: draw(data) for name, (draw, _) in registry.BENCHMARKS.items()}
    if request.param == "published":
        results = records.read_results(places(ROOT)[0].data)
        return {name: draw(name, results) for name in registry.drawable(results)}
    return made_up(request.param)[1]


@cache
def texts(figure) -> list[Text]:
    """Every text that is drawn, in the style in which figures are saved; ticks in view only."""
    seen = []
    with pytest.MonkeyPatch.context() as patch, plt.style.context(["default", STYLE]):
        patch.setattr(Text, "draw", lambda text, renderer: seen.append(text))
        figure.draw_without_rendering()
    return [text for text in seen if text.get_visible() and text.get_text().strip()]


def curves(axes) -> list[Line2D]:
    return [handle for handle in axes.get_legend_handles_labels()[0] if isinstance(handle, Line2D)]


def shape(line: Line2D) -> tuple:
    """Dash and marker, what is left of a curve without colour."""
    style = line.get_linestyle()
    return (style if style == "None" else line._unscaled_dash_pattern, line.get_marker())


def test_figures_fit_a_column_and_their_text_is_large_enough(drawn):
    for name, figure in drawn.items():
        width, height = figure.get_size_inches() * 25.4
        assert width == pytest.approx(COLUMN, abs=0.1), name
        assert height <= PAGE, name
        for text in texts(figure):
            assert text.get_fontsize() >= SMALLEST_TEXT, f"{name}: {text.get_text()!r}"
            assert contrast(to_rgb(text.get_color()), WHITE) >= TEXT_CONTRAST, f"{name}: {text.get_text()!r}"


def test_every_axis_says_its_unit(drawn):
    for name, figure in drawn.items():
        labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel()) if label]
        assert labels, name
        for label in labels:
            assert "(" in label or label == "matching of the two choices", f"{name}: {label!r}"  # categories have none


def test_no_text_overlaps_another_or_leaves_the_figure(drawn):
    for name, figure in drawn.items():
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in texts(figure)]  # without leads
        assert len(boxes) > 5, name
        for text, box in boxes:
            assert box.x0 >= 0, f"{name}: {text!r} leaves the figure"
            assert box.y0 >= 0, f"{name}: {text!r} leaves the figure"
            assert box.x1 <= figure.bbox.x1, f"{name}: {text!r} leaves the figure"
            assert box.y1 <= figure.bbox.y1, f"{name}: {text!r} leaves the figure"
        for (one, box), (other, other_box) in combinations(boxes, 2):
            # a space between neighbours on a line; lines of one paragraph may touch
            assert not box.padded(GAP, -0.5).overlaps(other_box), f"{name}: {one!r} lies on {other!r}"


def test_curves_on_the_same_axes_stay_apart_in_grey_and_for_colour_blind_readers(drawn):
    for name, figure in drawn.items():
        for axes in figure.axes:
            for line in curves(axes):
                assert contrast(to_rgb(line.get_color()), WHITE) >= LINE_CONTRAST, f"{name}: {line.get_label()}"
            for one, other in combinations(curves(axes), 2):
                pair = f"{name}: {one.get_label()!r} and {other.get_label()!r}"
                assert shape(one) != shape(other), f"{pair} have the same dash and marker, so they are alike in grey"
                colours = to_rgb(one.get_color()), to_rgb(other.get_color())
                if colours[0] == colours[1]:
                    continue  # one method twice, told apart by its dash alone
                apart = {vision: distance(*colours, vision) for vision in VISIONS if vision != "grey"}
                assert min(apart.values()) >= APART, f"{pair}: {apart}"


def test_fonts_are_embedded_in_every_pdf():
    paths = sorted((ROOT / "figures").glob("*.pdf"))
    assert len(paths) > 5
    for path in paths:
        pdf = path.read_bytes()
        fonts = re.findall(rb"/FontDescriptor\b(?! \d)[^>]*?>>", pdf, flags=re.DOTALL)
        assert fonts, path.name
        assert all(b"/FontFile2" in font for font in fonts), path.name
        assert not re.search(rb"/Subtype /Type[13]\b", pdf), (
            f"{path.name}: fonts of the reader's machine, or of bitmaps"
        )


def test_every_png_has_300_dots_an_inch_and_a_palette():
    paths = [path for path in (ROOT / "figures").glob("*.png")]
    assert len(paths) > 5
    for path in paths:
        with Image.open(path) as png:
            assert png.info["dpi"] == pytest.approx((300, 300), abs=0.1), path.name
            assert png.width == pytest.approx(COLUMN / 25.4 * 300, abs=2), path.name
            assert png.mode == "P", path.name


@pytest.mark.parametrize("vision", VISIONS)
def test_greys_look_alike_to_every_eye(vision):
    for grey in (0.0, 0.2, 0.5, 1.0):
        np.testing.assert_allclose(lab([grey] * 3, vision), lab([grey] * 3), atol=0.02)


def test_known_colours_have_their_published_coordinates():
    # CIELAB of the sRGB primaries under D65, Lindbloom's calculator
    for colour, expected in (
        ("red", (53.24, 80.09, 67.20)),
        ("lime", (87.73, -86.18, 83.18)),
        ("blue", (32.30, 79.19, -107.86)),
    ):
        np.testing.assert_allclose(lab(to_rgb(colour)), expected, atol=0.05)
    assert contrast(to_rgb("#767676"), WHITE) == pytest.approx(4.54, abs=0.005)


def test_colour_blindness_brings_the_colours_together_that_it_confuses():
    red_green, blue_green = ("#B24000", "#6A7A00"), ("#008890", "#0080B8")
    for vision, pair in (("protanopia", red_green), ("deuteranopia", red_green), ("tritanopia", blue_green)):
        colours = [to_rgb(colour) for colour in pair]
        assert distance(*colours, vision) < 0.5 * distance(*colours), vision


# ---- what figures say, and how they are written


@pytest.fixture(scope="module")
def results():
    return made_up(8)[0]


@pytest.mark.parametrize("groups", [8, 1])
def test_every_figure_and_caption_tells_n_and_no_legend_covers_data(groups):
    results, drawn = made_up(groups)
    for name, figure in drawn.items():
        below = figure.legends or [each for axes in figure.axes if (each := axes.get_legend())]
        says = below[0].get_title().get_text() if figure.legends else figure.get_supxlabel()
        caption = registry.caption(name, results)
        for told in (says, caption):
            assert f"n = {groups} group" in told, name
            assert ("no interval" in told) == (groups == 1), name
        assert ("studentised bootstrap" in caption) == (groups > 1), name
        assert "synthetic images" in caption, name
        texts(figure)  # which lays it out
        renderer = FigureCanvasAgg(figure).get_renderer()
        top = max(legend.get_window_extent(renderer).y1 for legend in below)
        for axes in figure.axes:
            assert figure.legends or axes.get_window_extent(renderer).y0 >= top - 1, name
            assert not figure.legends or axes.get_legend() is None, name
            assert not figure.legends or axes.get_tightbbox(renderer).y0 >= top - 1, name


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


def test_drawing_leaves_the_sessions_style_and_the_data_alone(results):
    style, merge = dict(matplotlib.rcParams), results["merge"].copy(deep=True)
    draw("fig1_accuracy", results)
    assert dict(matplotlib.rcParams) == style
    assert merge.identical(results["merge"])


def test_a_method_keeps_its_colour_in_every_figure():
    drawn = made_up(8)[1]
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


def test_titles_say_what_is_planted():
    made = synthetic.results(groups=8, noise=0.1, stages=("merge", "attack", "regularity", "ablations"))
    told = {name: registry.headline(name, made) for name in registry.drawable(made)}
    assert told["fig1_accuracy"] == (
        "The tree is more accurate than MergeMany after one sweep and more accurate than converged MergeMany."
    )
    assert told["fig2_robust_accuracy"] == (
        "Stage 0 leads stage 4 under weak FGSM, stage 4 leads stage 0 under strong; the curves cross at 0.010."
    )
    assert told["fig3_weight_norm"].startswith("The weight norm falls at every stage; the last step is ")
    assert told["fig4_lipschitz"] == "All upper bounds fall at every stage, and the lower bound does too."
    assert "6.0 points of accuracy are lost after matching, 30.0 without" in told["fig5_barriers"]
    assert "is more accurate than unmerged networks and keeps more" in told["fig7_noise"]
    assert "The test loss has no barrier" not in registry.caption("fig5_barriers", made)  # planted: it has one


def test_titles_of_one_tree_resolve_nothing_and_all_end_with_a_full_stop():
    made = made_up(1)[0]
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


def test_early_stopped_networks_are_no_method_of_merging():
    data = xr.Dataset(coords={"method": ("model", np.array(["tree", "stopped", "naive"], dtype=object))})
    assert style.added_methods(data) == {}
    assert list(style.added_methods(data.assign_coords(method=("model", ["tree", "star", "stopped"])))) == ["star"]
