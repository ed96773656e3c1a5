"""What a figure's caption and title tell of its data."""

import json
from collections.abc import Callable
from functools import wraps
from textwrap import fill

import xarray as xr
from matplotlib.figure import Figure

from ..groups import PERCENT, NotMeasuredError, tree, tree_stages
from .style import TITLE_WIDTH, styled


def numbers_behind(dataset: xr.Dataset) -> list[str]:
    """How many images and pairs of networks a data set holds or was measured on, for captions."""
    shown = {"image": "test images", "pair": "pairs of networks"}
    told = [f"{dataset.sizes[dim]} {name}." for dim, name in shown.items() if dim in dataset.sizes]
    return told or images_of_parameters(dataset)


def images_of_parameters(dataset: xr.Dataset) -> list[str]:
    """How many test images were measured, by the parameters that a data set tells; it may hold means over them."""
    parameters, told = json.loads(dataset.attrs.get("parameters", "{}")), []
    if "test_accuracy" in dataset and "evaluated_images" in parameters:
        told.append(f"Test accuracy: at most {parameters['evaluated_images']:,} images.")
    first = parameters.get("strong_images", parameters.get("attacked_images"))
    if first and ({"robust_accuracy", "strong_accuracy"} & set(dataset.data_vars)):
        told.append(f"Attacks: the first {first:,} test images.")
    elif first:
        told.append(f"Gradients and margins: the first {first:,} test images.")
    return told


def behind_attacks(dataset: xr.Dataset) -> list[str]:
    """`numbers_behind`, and on how many images FGSM has no gradient to follow, where the data set tells."""
    told = numbers_behind(dataset)
    if "zero_gradients" in dataset:
        top = tree_stages(dataset)[-1]
        first, last = (float(tree(dataset.zero_gradients, stage).mean()) * PERCENT for stage in (0, top))
        shares = f"{first:.2g} % of images at stage 0 and on {last:.2g} % at stage {top}"
        told.append(f"FGSM's gradient is exactly zero on {shares}.")
    return told


def captioned(
    caption: str,
    *,
    about: Callable[[xr.Dataset], list[str]] = behind_attacks,
    seen: Callable[[xr.Dataset], str] | None = None,
) -> Callable:
    """Draw `styled`, and give the function what `hrebasin.study.figures.registry.caption` writes of its figure.

    Args:
        caption: what is shown.
        about: gives, of the data set, the sentences that only data can tell.
        seen: gives, of the data set, what the figure shows in a short sentence with a full stop: its title. Empty where
            the data set does not hold what it is about.
    """

    def title(data: xr.Dataset) -> str:
        try:
            return seen(data)
        except NotMeasuredError:
            return ""

    def decorate(draw: Callable[..., Figure]) -> Callable[..., Figure]:
        @wraps(draw)
        def titled(data: xr.Dataset) -> Figure:
            figure = draw(data)
            if seen:
                figure.suptitle(fill(title(data), TITLE_WIDTH), fontsize="medium", fontweight="bold")
            return figure

        inner = styled(titled)
        inner.caption, inner.about, inner.seen = caption, about, title if seen else None
        return inner

    return decorate


def tabled(caption: str, *, about: Callable[[xr.Dataset], list[str]]) -> Callable:
    """Give a function that makes a table of a data set what `captioned` gives those that draw."""

    def decorate(tabulate: Callable) -> Callable:
        tabulate.caption, tabulate.about = caption, about
        return tabulate

    return decorate
