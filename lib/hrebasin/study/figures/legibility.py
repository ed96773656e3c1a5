"""Whether what is written on a figure can be read."""

from matplotlib.figure import Figure

from .style import styled


@styled
def outside(figure: Figure) -> list[str]:
    """Texts that do not lie within the figure as it is saved: titles, labels, ticks in view, entries of the legend."""
    figure.draw_without_rendering()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks() + axis.get_minor_ticks()
            texts += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    page, boxes = figure.bbox.padded(1), [text.get_window_extent() for text in shown]  # a pixel of rounding
    inside = [page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes]
    return [text.get_text() for text, within in zip(shown, inside, strict=True) if not within]
