"""Latencies as a picture for the terminal: each line's percentiles, on a scale of powers of ten."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from merganser.model.errors import ConfigurationError

WIDTH = 60
ROWS_PER_DECADE = 5
_MARKERS = "123456789abcdefghijklmnopqrstuvwxyz"


def plot(curves: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str) -> str:
    """Return ``curves`` (points by name) as text, both axes logarithmic; points that are not positive are left out.

    Raises:
        ConfigurationError: the package that draws is not installed.
    """
    try:
        from plotille import Figure
    except ImportError:
        raise ConfigurationError("plots are drawn by plotille: pip install 'merganser[bench]'") from None
    figure = Figure()
    logs = {
        name: [(math.log10(a), math.log10(b)) for a, b in points if a > 0 and b > 0] for name, points in curves.items()
    }
    drawn = [point for points in logs.values() for point in points]
    if not drawn:
        return ""
    left, right = _decades([one for one, _ in drawn])
    low, high = _decades([other for _, other in drawn])
    figure.set_x_limits(left, right)
    figure.set_y_limits(low, high)
    figure.width, figure.height = WIDTH, (high - low) * ROWS_PER_DECADE
    figure.color_mode = "names"
    figure.with_colors = False
    figure.x_label, figure.y_label = x, y
    figure.register_label_formatter(float, _power)
    for (name, points), marker in zip(logs.items(), itertools.cycle(_MARKERS), strict=False):
        if points:
            figure.plot(*zip(*points, strict=True), label=name, marker=marker)
    return str(figure.show(legend=True))


def _decades(logs: list[float]) -> tuple[int, int]:
    """Return the powers of ten around them, which differ."""
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return low, max(high, low + 1)


def _power(value: float, chars: int, delta: float, left: bool = False) -> str:
    """Return 10 to the ``value``, short."""
    text = f"{10**value:.3g}"
    return text.ljust(chars) if left else text.rjust(chars)
