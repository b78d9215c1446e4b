"""Figures as SVG: lines with bands, and points of categories, in the colours of the page's style."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

# in pixels; a figure is as wide as a phone
_WIDTH, _HEIGHT = 360, 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 12, 40
# of a second row of ticks
_ROW = 16
_TICKS = 5
# the most lines of a figure; the style sheet has a colour and a dash for each
MOST = 6
# the least that a linear axis spans, as a share of its largest value, so that noise does not look like a collapse
_LEAST_SPAN = 0.25

Value = float | None


@dataclass(frozen=True)
class Series:
    """One line of a figure.

    Attributes:
        name: for the legend.
        xs: the places of its points; the numbers of categories, from 0.
        ys: their heights, of the same length; None where there is no point.
        style: its class in the style sheet: "s0" for the first run, "t0" for the first tensor.
        low, high: a band around the line, of the same length, or empty.
        marked: the place of the point that gets a ring.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[Value]
    style: str = "s0"
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marked: float | None = None

    @property
    def points(self) -> list[tuple[float, float]]:
        """(x, y) of the points with a finite height."""
        return [(x, y) for x, y in zip(self.xs, self.ys) if y is not None and math.isfinite(y)]


def short(value: float) -> str:
    """``value`` in a few characters: 1200000 as 1.2M."""
    size = abs(value)
    for letter, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size >= 10 * unit or (size >= unit and unit > 1e3):
            return f"{value / unit:.3g}{letter}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: what it measures, with its unit.
        is_log: whether it is logarithmic; its values are then at least 1.
        is_whole: whether there is nothing between two whole numbers, as with epochs.
        from_zero: whether it begins at 0.
        text: formats a number of it.
        others: (place, text) of the ticks of a second row below, or empty.
    """

    label: str
    is_log: bool = False
    is_whole: bool = False
    from_zero: bool = False
    text: Callable[[float], str] = short
    others: Sequence[tuple[float, str]] = ()


def lines(series: Sequence[Series], x: Axis, y: Axis, title: str) -> Markup:
    """A line with points for each of ``series``, as SVG; empty if there are no points."""
    points = [point for one in series for point in one.points]
    if not points:
        return Markup("")
    heights = [*(height for _, height in points), *(v for one in series for v in (*one.low, *one.high))]
    across = _Scale.across([place for place, _ in points], x)
    return _figure(series, across, _Scale.up(heights, y), x, y, across.ticks(), title)


def categories(names: Sequence[str], series: Sequence[Series], x_label: str, y: Axis, title: str) -> Markup:
    """Points above each of ``names``, joined by lines, as SVG; the ``xs`` of ``series`` number the names."""
    points = [point for one in series for point in one.points]
    if not points:
        return Markup("")
    across = _Scale(-0.5, len(names) - 0.5, _LEFT, _WIDTH - _RIGHT)
    x = Axis(x_label, text=lambda place: names[round(place)])
    return _figure(series, across, _Scale.up([height for _, height in points], y), x, y, range(len(names)), title)


@dataclass(frozen=True)
class _Scale:
    """Maps values from ``low`` to ``high`` to pixels from ``start`` to ``stop``, with a tick at each ``step``."""

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False
    step: float = 0.0

    @classmethod
    def across(cls, values: Sequence[float], x: Axis) -> "_Scale":
        low, high = min(values), max(values)
        if x.is_log:
            low, high = max(1.0, low), max(2.0, high)
        elif x.from_zero:
            low, high = 0.0, high * 1.1
        elif low == high:
            low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
        step = _step(low, high)
        return cls(low, high, _LEFT, _WIDTH - _RIGHT, x.is_log, max(1.0, step) if x.is_whole else step)

    @classmethod
    def up(cls, values: Sequence[float], y: Axis) -> "_Scale":
        low, high = min(values), max(values)
        low = min(low, 0.0) if y.from_zero else min(low, high - _LEAST_SPAN * max(map(abs, (low, high))))
        high = high if high > low else low + 1
        step = _step(low, high)
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return cls(low, high, _HEIGHT - _BOTTOM, _TOP, step=step)

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(max(1.0, value)), math.log(low), math.log(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[float]:
        if self.is_log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            found = [10.0**power for power in powers]
            if len(found) < 3:
                found = sorted({*found, *(m * 10.0**p for p in range(0, 13) for m in (2, 5))})
                found = [value for value in found if self.low <= value <= self.high]
            return found
        first = math.ceil(self.low / self.step - 1e-9)
        last = math.floor(self.high / self.step + 1e-9)
        return [number * self.step for number in range(first, last + 1)]


def _step(low: float, high: float) -> float:
    rough = (high - low) / _TICKS or 1.0
    unit = 10 ** math.floor(math.log10(rough))
    return next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)


def _figure(
    series: Sequence[Series],
    across: _Scale,
    up: _Scale,
    x: Axis,
    y: Axis,
    x_ticks: Sequence[float],
    title: str,
) -> Markup:
    parts = [_grid(across, up, x, y, x_ticks), *(_drawn(one, across, up, x, y) for one in series)]
    height = _HEIGHT + (_ROW if x.others else 0)
    head = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")


def _grid(across: _Scale, up: _Scale, x: Axis, y: Axis, x_ticks: Sequence[float]) -> str:
    floor, parts = _HEIGHT - _BOTTOM, []
    for value in up.ticks():
        level = f"{up.place(value):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{level}" y2="{level}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 5}" y="{level}" dy="4">{escape(y.text(value))}</text>')
    parts += _row([(value, x.text(value)) for value in x_ticks], across, floor + 15)
    parts += _row(x.others, across, floor + 15 + _ROW)
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    below = _HEIGHT - 6 + (_ROW if x.others else 0)
    parts.append(f'<text class="mid label" x="{middle}" y="{below}">{escape(x.label)}</text>')
    height = (_TOP + floor) / 2
    turned = f'transform="rotate(-90 11 {height})"'
    parts.append(f'<text class="mid label" x="11" y="{height}" {turned}>{escape(y.label)}</text>')
    return "".join(parts)


def _row(ticks: Sequence[tuple[float, str]], across: _Scale, y: float) -> list[str]:
    """The texts of ``ticks`` but those that would run into another."""
    parts, last = [], -math.inf
    for value, text in ticks:
        place, width = across.place(value), 6.2 * len(text)
        if place - width / 2 < last + 2 or place + width / 2 > _WIDTH + 6:
            continue
        last = place + width / 2
        parts.append(f'<text class="mid" x="{place:.1f}" y="{y}">{escape(text)}</text>')
    return parts


def _drawn(one: Series, across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    parts = []
    if one.low and one.high:
        there = [*zip(one.xs, one.high), *reversed([*zip(one.xs, one.low)])]
        corners = " ".join(f"{across.place(a):.1f},{up.place(b):.1f}" for a, b in there)
        parts.append(f'<polygon class="band {one.style}" points="{corners}"/>')
    places = [(across.place(a), up.place(b), a, b) for a, b in one.points]
    if len(places) > 1:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b, _, _ in places)
        parts.append(f'<polyline class="line {one.style}" points="{path}"/>')
    radius = 3.2 if len(places) <= 40 else 1.4
    for a, b, at, height in places:
        text = escape(f"{one.name}: {x.label} {x.text(at)}, {y.label} {y.text(height)}")
        point = f'cx="{a:.1f}" cy="{b:.1f}"'
        if at == one.marked:
            parts.append(f'<circle class="ring {one.style}" {point} r="6.5"/>')
        parts.append(f'<circle class="dot {one.style}" {point} r="{radius}"><title>{text}</title></circle>')
    return "".join(parts)
