"""Curves as text, for a terminal or a page."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from merganser.model.errors import ConfigurationError

WIDTH = 60
ROWS_PER_DECADE = 5
_MARKERS = "123456789abcdefghijklmnopqrstuvwxyz"


def plot(curves: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, is_x_linear: bool = False) -> str:
    """Return ``curves`` (points by name) as text, on logarithmic axes; points that are not positive are left out.

    Args:
        curves: drawn each with a marker of its own, by which the legend names it.
        x: what the first numbers are.
        y: what the second numbers are.
        is_x_linear: the first numbers are drawn as they are.

    Raises:
        ConfigurationError: the package that draws is not installed.
    """
    try:
        from plotille import Figure
    except ImportError:
        raise ConfigurationError("plots are drawn by plotille: pip install 'merganser[bench]'") from None
    points = {
        name: [(a if is_x_linear else math.log10(a), math.log10(b)) for a, b in pairs if a > 0 and b > 0]
        for name, pairs in curves.items()
    }
    drawn = [point for some in points.values() for point in some]
    if not drawn:
        return ""
    figure = Figure()
    xs, ys = zip(*drawn, strict=True)
    left, right = (0.0, max(xs) * 1.1) if is_x_linear else _decades(xs)
    low, high = _decades(ys)
    figure.set_x_limits(left, right)
    figure.set_y_limits(low, high)
    figure.width, figure.height = WIDTH, int(high - low) * ROWS_PER_DECADE
    figure.with_colors = False
    figure.x_label, figure.y_label = x, y
    figure.x_ticks_fkt = lambda value, _: _short(value if is_x_linear else 10**value)
    figure.y_ticks_fkt = lambda value, _: _short(10**value)
    for (name, some), marker in zip(points.items(), itertools.cycle(_MARKERS), strict=False):
        if some:
            figure.plot(*zip(*some, strict=True), label=name, marker=marker)
    return str(figure.show(legend=True))


def _decades(logs: Sequence[float]) -> tuple[float, float]:
    """Return the powers of ten around them, which differ."""
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return low, max(high, low + 1)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
