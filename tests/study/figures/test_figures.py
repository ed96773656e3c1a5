"""Every figure at column width: large enough, nothing on anything else, curves that stay apart for any eye."""

import re
from functools import cache
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
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
from hrebasin.study.figures.style import STYLE, save
from hrebasin.study.publishing.places import benchmarks_file

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
        return request.getfixturevalue("main_setting").drawn
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
    dash = line.get_linestyle()
    return (dash if dash == "None" else line._unscaled_dash_pattern, line.get_marker())


def test_figures_fit_a_column_with_large_texts_apart_and_a_unit_on_every_axis(drawn):
    for name, figure in drawn.items():
        width, height = figure.get_size_inches() * 25.4
        assert width == pytest.approx(COLUMN, abs=0.1), name
        assert height <= PAGE, name
        labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel()) if label]
        assert labels, name
        for label in labels:
            assert "(" in label or label == "matching of the two choices", f"{name}: {label!r}"  # categories have none
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [(text, Text.get_window_extent(text, renderer)) for text in texts(figure)]  # without leads
        assert len(boxes) > 5, name
        for text, box in boxes:
            said = f"{name}: {text.get_text()!r}"
            assert text.get_fontsize() >= SMALLEST_TEXT, said
            assert contrast(to_rgb(text.get_color()), WHITE) >= TEXT_CONTRAST, said
            assert min(box.x0, box.y0) >= 0, f"{said} leaves the figure"
            assert box.x1 <= figure.bbox.x1, f"{said} leaves the figure"
            assert box.y1 <= figure.bbox.y1, f"{said} leaves the figure"
        for (one, box), (other, other_box) in combinations(boxes, 2):
            # a space between neighbours on a line; lines of one paragraph may touch
            lies_on = box.padded(GAP, -0.5).overlaps(other_box)
            assert not lies_on, f"{name}: {one.get_text()!r} lies on {other.get_text()!r}"


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


def test_published_files_embed_their_fonts_and_have_300_dots_an_inch_and_a_palette():
    paths = sorted((ROOT / "figures").glob("*.pdf"))
    assert len(paths) > 5
    for path in paths:
        pdf = path.read_bytes()
        fonts = re.findall(rb"/FontDescriptor\b(?! \d)[^>]*?>>", pdf, flags=re.DOTALL)
        assert fonts, path.name
        assert all(b"/FontFile2" in font for font in fonts), path.name
        assert not re.search(rb"/Subtype /Type[13]\b", pdf), f"{path.name}: fonts of the reader's machine, or bitmaps"
        with Image.open(path.with_suffix(".png")) as png:
            assert png.info["dpi"] == pytest.approx((300, 300), abs=0.1), path.name
            assert png.width == pytest.approx(COLUMN / 25.4 * 300, abs=2), path.name
            assert png.mode == "P", path.name


def test_colours_have_their_published_coordinates_and_colour_blindness_brings_some_together():
    # CIELAB of the sRGB primaries under D65, Lindbloom's calculator
    for colour, expected in (
        ("red", (53.24, 80.09, 67.20)),
        ("lime", (87.73, -86.18, 83.18)),
        ("blue", (32.30, 79.19, -107.86)),
    ):
        np.testing.assert_allclose(lab(to_rgb(colour)), expected, atol=0.05)
    assert contrast(to_rgb("#767676"), WHITE) == pytest.approx(4.54, abs=0.005)
    for vision in VISIONS:
        np.testing.assert_allclose(lab([0.5] * 3, vision), lab([0.5] * 3), atol=0.02)
    red_green, blue_green = ("#B24000", "#6A7A00"), ("#008890", "#0080B8")
    for vision, pair in (("protanopia", red_green), ("deuteranopia", red_green), ("tritanopia", blue_green)):
        colours = [to_rgb(colour) for colour in pair]
        assert distance(*colours, vision) < 0.5 * distance(*colours), vision


# ---- what figures say, and how they are written


@pytest.mark.parametrize("groups", [8, 1])
def test_every_figure_and_caption_tells_n_and_no_legend_covers_data(groups):
    results, drawn = made_up(groups)
    for name, figure in drawn.items():
        below = figure.legends or [each for axes in figure.axes if (each := axes.get_legend())]
        says = below[0].get_title().get_text() if figure.legends else figure.get_supxlabel()
        caption = registry.caption(name, results)
        for told in (says, caption):
            assert f"n = {groups} tree" in told, name
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


def test_drawing_and_saving_twice_gives_the_same_bytes_and_leaves_style_and_data_alone(tmp_path):
    results = made_up(8)[0]
    settings, merge = dict(matplotlib.rcParams), results["merge"].copy(deep=True)
    first = save(draw("fig1_accuracy", results), tmp_path / "a" / "fig", source="test data")
    second = save(draw("fig1_accuracy", results), tmp_path / "b" / "fig", source="test data")
    assert [path.name for path in first] == ["fig.pdf", "fig.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert b"CreationDate" not in first[0].read_bytes()
    assert dict(matplotlib.rcParams) == settings
    assert merge.identical(results["merge"])


def test_figures_whose_data_sets_are_there_are_drawn_and_name_them(tmp_path):
    small = synthetic.results(groups=2, leaves=4)
    assert all(draw(name, small).axes for name in FIGURES)
    origin = {"created": "2026-01-02", "code_commit": "0123456789abcdef", "code_changed": 1}
    merge = small["merge"].assign_attrs(origin, data_digest='{"test": "42"}')
    assert list(registry.draw_all({"merge": merge}, tmp_path)) == ["fig1_accuracy"]
    files = {f"fig1_accuracy.{ending}" for ending in ("pdf", "png", "md")}
    assert {path.name for path in tmp_path.iterdir()} == {*files, "SHA256SUMS"}
    named = "merge.nc of setting synthetic, made 2026-01-02 by commit 0123456789ab and changes to it"
    named += " from synthetic images, test 42"
    with Image.open(tmp_path / "fig1_accuracy.png") as png:
        assert png.info["Description"] == named
    assert f"/Subject ({named})".encode() in (tmp_path / "fig1_accuracy.pdf").read_bytes()


def test_titles_say_what_is_planted():
    made = synthetic.results(groups=8, noise=0.1, stages=("merge", "attack", "regularity", "ablations"))
    told = {name: registry.headline(name, made) for name in registry.drawable(made)}
    assert told["fig1_accuracy"].count("more accurate than") == 2
    assert told["fig2_robust_accuracy"] == (
        "Stage 0 leads stage 4 under weak FGSM, stage 4 leads stage 0 under strong; the curves cross at 0.010."
    )
    assert told["fig3_weight_norm"].startswith("The weight norm falls at every stage; the last step is ")
    assert told["fig4_lipschitz"] == "All upper bounds fall at every stage, and the lower bound does too."
    assert "6.0 points of accuracy are lost after matching, 30.0 without" in told["fig5_barriers"]
    assert "is more accurate than unmerged networks and keeps more" in told["fig7_noise"]
    one = made_up(1)[0]
    assert registry.headline("fig2_robust_accuracy", one) == "No lead is resolved under weak or strong FGSM."
    alone = {"merge": one["merge"].isel(model=(one["merge"].method != "merge-many").values)}
    assert registry.headline("fig1_accuracy", alone) == draw("fig1_accuracy", alone).get_suptitle() == ""


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
    data = xr.Dataset(coords={"method": ("model", np.array(["tree", "star", "stopped"], dtype=object))})
    assert list(style.added_methods(data)) == ["star"]
