"""Unknown factors of axes and what is learnt about them: a union-find whose members may turn out to be compound.

Everything starts as one unknown factor an axis. Tying two axes makes factors equal, and refines them where the two do
not have the same parts: into a product (16 channels that are read as 4 x 4) or a sum (16 channels that are cut into
10 and 6). A refinement holds everywhere at once, since an axis is looked up only when it is needed.
"""

from collections.abc import Iterable, Sequence

from .axes import Axis, Factor, Segment, axis_size, factors_of, joined, segment_size, simplify

# So many segments of one axis are spelt out; beyond, the axis is fixed. Twice the largest of known networks.
MOST_SEGMENTS = 256


def fixed(size: int) -> Axis:
    """An axis whose units stay."""
    return _axis(Factor(None, size))


def concatenation(axes: Iterable[Axis]) -> Axis:
    """One axis behind the other."""
    return tuple(segment for axis in axes for segment in axis if segment_size(segment))


class Factors:
    """All unknown factors of one network.

    >>> factors = Factors()
    >>> channels, groups, units = factors.new(6), factors.new(2), factors.new(3)
    >>> factors.tie(channels, factors.product([groups, units]))
    >>> factors.fix(groups)
    >>> factors.resolve(channels)
    ((Factor(name=None, size=2), Factor(name='f3', size=3)),)
    """

    def __init__(self):
        self.n_names = 0
        self.known: dict[str, Axis] = {}  # what a factor turned out to be

    def new(self, size: int) -> Axis:
        """An axis of which nothing is known."""
        return _axis(self._unknown(size))

    def _unknown(self, size: int) -> Factor:
        if size <= 1:
            return Factor(None, size)
        self.n_names += 1
        return Factor(f"f{self.n_names}", size)

    def resolve(self, axis: Axis) -> Axis:
        """The axis in factors that are still unknown, or fixed."""
        while any(factor.name in self.known for segment in axis for factor in segment):
            axis = concatenation(self.product(map(self._look_up, segment)) for segment in axis)
        return axis

    def _look_up(self, factor: Factor) -> Axis:
        if factor.name not in self.known:
            return _axis(factor)
        self.known[factor.name] = found = simplify(self.resolve(self.known[factor.name]))
        return found

    def product(self, axes: Iterable[Axis]) -> Axis:
        """The axis that flattens the given ones, the major one first."""
        segments: list[Segment] = [()]
        for axis in axes:
            count = sum(map(segment_size, segments))
            if len(axis) == 1:
                segments = [segment + axis[0] for segment in segments]
            elif count == 1:
                segments = list(axis)
            elif count * len(axis) > MOST_SEGMENTS:
                self.fix(axis)
                segments = [(*segment, Factor(None, axis_size(axis))) for segment in segments]
            else:
                # only repetitions of a concatenation are segments again: what counts them has to stay
                self.fix(tuple(segments))
                segments = list(axis) * count
        return tuple(joined(segment) for segment in segments)

    def fix(self, *axes: Axis) -> None:
        """Nothing may move the units of these axes."""
        for factor in factors_of(*map(self.resolve, axes)):
            if factor.name is not None:
                self.known[factor.name] = fixed(factor.size)

    def tie(self, first: Axis, second: Axis) -> None:
        """Both axes are moved alike from now on.

        Raises:
            ValueError: axes of different sizes.
        """
        if axis_size(first) != axis_size(second):
            raise ValueError(f"axes of {axis_size(first)} and {axis_size(second)} units cannot be tied")
        left, right = (first, second) if axis_size(first) else ((), ())
        while True:
            left, right = self.resolve(left), self.resolve(right)
            if left == right:
                return
            a, b = left[0], right[0]
            if segment_size(a) > segment_size(b):
                left = self._cut(a, segment_size(b)) + left[1:]
            elif segment_size(a) < segment_size(b):
                right = self._cut(b, segment_size(a)) + right[1:]
            elif a == b:
                left, right = left[1:], right[1:]
            else:
                a, b = self._match(a, b)
                left, right = (a, *left[1:]), (b, *right[1:])

    def _match(self, a: Segment, b: Segment) -> tuple[Segment, Segment]:
        """Tie the major factors of two products of one size; what remains to be tied."""
        f, g = a[0], b[0]
        if f.size < g.size:
            return self._match(b, a)[::-1]
        if f.size % g.size:
            self.fix((a, b))
            return (), ()
        minor = Factor(None, f.size // g.size)
        if f.size == g.size:
            self._unite(f, g)
        elif f.name is None:
            self.fix(_axis(g))
        else:
            minor = self._unknown(f.size // g.size)
            self.known[f.name] = ((g, minor),)
        return joined((minor, *a[1:])), b[1:]

    def _unite(self, f: Factor, g: Factor) -> None:
        if f.name is None:
            self.fix(_axis(g))
        elif f != g:
            self.known[f.name] = _axis(g)

    def _cut(self, segment: Segment, size: int) -> Axis:
        """The segment as several, so that one ends after ``size`` units or the first of them can be cut further."""
        major, rest = segment[0], segment[1:]
        count, remainder = divmod(size, segment_size(rest))
        if remainder:
            self.fix(_axis(major))
            counts = (count, 1, major.size - count - 1)
            return tuple(joined((Factor(None, n), *rest)) for n in counts if n)
        parts = [Factor(None, n) if major.name is None else self._unknown(n) for n in (count, major.size - count)]
        if major.name is not None:
            self.known[major.name] = simplify(tuple(joined((part,)) for part in parts))
        return tuple(joined((part, *rest)) for part in parts)

    def split(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """The axis cut into pieces."""
        pieces = [self.new(size) for size in sizes]
        self.tie(axis, concatenation(pieces))
        return pieces

    def factorise(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """The axis as a product of axes of the given sizes, the major one first."""
        parts = [self.new(size) for size in sizes]
        self.tie(axis, self.product(parts))
        return parts


def _axis(factor: Factor) -> Axis:
    return (joined((factor,)),)
