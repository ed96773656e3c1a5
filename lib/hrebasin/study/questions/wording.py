"""Effects as sentences tell them: a size, its interval, how many trees; and names."""

from collections.abc import Callable, Iterable

import numpy as np

from ...merging.distances import CONVERGENCE
from ..groups import POINTS, sweeps_in_words
from ..resampling import LEVEL
from ..statistics import Test

FEW_DIGITS = 0.1  # below it one decimal says too little
SHORT = {POINTS: "points", "pixel range": ""}
RECIPES = {"adam": "Adam", "sgd": "SGD", "crop-flip": "crop, flip", "decay": "weight decay"}
WIDTH = "width x "  # begins the name of a recipe of other widths


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= FEW_DIGITS or not value else f"{value:.2g}"


def two_digits(ratio: float) -> str:
    """A ratio with two digits.

    >>> two_digits(1.84), two_digits(231.0)
    ('1.8', '230')
    """
    return f"{float(f'{ratio:.2g}'):g}"


def span(values: Iterable[float]) -> str:
    """The least and the most of some values, with two digits; one where both read alike.

    >>> span([1.84, 231.0]), span([1.84, 1.81])
    ('1.8 to 230', '1.8')
    """
    values = [*values]
    return " to ".join(dict.fromkeys((two_digits(min(values)), two_digits(max(values)))))


def _factor(logarithm: float) -> str:
    return two_digits(10**logarithm)


def amount(test: Test) -> str:
    """The size of an effect without its sign.

    >>> amount(Test("ahead", [-5.9, -5.7], "percentage points"))
    '5.8 points'
    """
    return f"{_number(abs(test.effect))} {_unit(test)}".rstrip()


def signed(test: Test) -> str:
    """An effect with its sign and interval.

    >>> signed(Test("ahead", [-5.9, -5.7], "percentage points"))
    '-5.8 points (95 % interval -7.1 to -4.5, n = 2 trees)'
    """
    return f"{_number(test.effect)} {_unit(test)}".rstrip() + f" {within(test)}"


def by_factor(test: Test) -> str:
    """A factor whose logarithm to base 10 a test is about.

    >>> by_factor(Test("fall", [1.0, 1.1], "log10"))
    'by a factor of 11 (95 % interval 2.6 to 48, n = 2 trees)'
    """
    return f"by a factor of {_factor(test.effect)} {within(test, number=_factor)}"


def within(test: Test, *, mirrored: bool = False, number: Callable[[float], str] = _number) -> str:
    """The interval of an effect and its number of trees, in brackets.

    Args:
        test: the effect.
        mirrored: of the effect with the other sign, for sentences that say "less".
        number: how its ends are written; by default with one decimal, or two digits where they are small.
    """
    low, high = test.interval()
    if test.n == 1:
        return "(1 tree: no interval)"
    if np.isnan(low):
        return f"(the same in all {test.n} trees)" if test.n else "(no tree has both sides)"
    low, high = (-high, -low) if mirrored else (low, high)
    return f"({100 * LEVEL:.0f} % interval {number(low)} to {number(high)}, n = {test.n} trees)"


def listed(names: list[str]) -> str:
    """Names with commas, and "and" before the last.

    >>> listed(["crop", "flip", "weight decay"]), listed(["crop"]), listed([])
    ('crop, flip and weight decay', 'crop', '')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def recipe_in_words(recipe: str) -> str:
    """A recipe of training as a sentence names it.

    >>> recipe_in_words("sgd, crop-flip, decay"), recipe_in_words("adam"), recipe_in_words("width x 0.5")
    ('SGD with crop, flip and weight decay', 'Adam', '0.5 times the width')
    """
    if recipe.startswith(WIDTH):
        return f"{recipe.removeprefix(WIDTH)} times the width"
    optimizer, *more = (RECIPES.get(part, part) for part in recipe.split(", "))
    return f"{optimizer} with {listed(', '.join(more).split(', '))}" if more else optimizer


def way_at_first(way: str) -> str:
    """A way's name as it begins a sentence."""
    name = way_in_words(way)
    return f"{name[0].upper()}{name[1:]}"


def way_in_words(way: str) -> str:
    """A way's name as it stands in a sentence."""
    name, comma, which = way.partition(", ")
    if name == "tree" and comma:
        return f"a tree matched {which}" if which.startswith("by ") else f"a {which} tree"
    if name != "MergeMany":
        return f"{name} ({which})" if comma else name
    return f"converged {name}" if which == sweeps_in_words(CONVERGENCE) else f"{name} after {which}"


def _unit(test: Test) -> str:
    return SHORT.get(test.units, "" if test.units == "1" else test.units)
