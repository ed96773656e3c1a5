"""Every figure at column width: large enough, nothing on anything else, curves that stay apart for any eye."""

import re
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

import synthetic
from colour_vision import VISIONS, contrast, distance, lab
from hrebasin.files import project_root
from hrebasin.study import records
from hrebasin.study.figures import registry as figures
from hrebasin.study.figures.style import STYLE
from hrebasin.study.publishing.places import benchmarks_file, places

ROOT = project_root()
COLUMN, PAGE = 85, 235  # mm: one column of print, and the height of its text
SMALLEST_TEXT = 6  # points
GAP = 2  # pixels at 100 dots an inch
APART = 10  # in CIELAB, for every kind of colour vision
LINE_CONTRAST, TEXT_CONTRAST = 3, 4.5  # on white, WCAG 2.2
WHITE = (1, 1, 1)


def drawn_from(source: str) -> dict:
    if source == "benchmarks":
        data = records.read(benchmarks_file(ROOT), stage="benchmarks")
        return {name: draw(data) for name, (draw, _) in figures.BENCHMARKS.items()}
    published = records.read_results(places(ROOT)[0].data) if source == "published" else None
    results = published or synthetic.results(groups=int(source))
    return {name: figures.draw(name, results) for name in figures.drawable(results)}


@pytest.fixture(scope="module", params=["published", "8", "1", "benchmarks"])
def drawn(request):
    return drawn_from(request.param)


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
        with Image.open(path) as image:
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1), path.name
            assert image.width == pytest.approx(COLUMN / 25.4 * 300, abs=2), path.name
            assert image.mode == "P", path.name


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
