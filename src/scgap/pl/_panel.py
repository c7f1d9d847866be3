"""One panel of moments: points, band, correlations, and the names of the features furthest off."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from scgap.pl._style import BASELINE, CEILING, MODEL, ink, text_colour

N_NAMED = 3  # features furthest off that are named in a panel
MANY = 500  # points, above which they are small, and pixels in a vector file


class Errors(NamedTuple):
    """Mean absolute errors over the points, all of equally many cells."""

    predicted: float
    baseline: float
    replicate: float
    """Of one half of the observed cells as prediction of the other."""


class Points(NamedTuple):
    """One moment of every feature, or pair of features, in every group."""

    names: np.ndarray
    """(n_points,) features."""
    predicted: np.ndarray
    baseline: np.ndarray
    observed: np.ndarray
    band: float
    """Mean absolute difference between halves of the observed cells."""
    errors: Errors
    n_all: int
    """Points with those that are not drawn."""
    baseline_name: str


class Box(NamedTuple):
    """Part of a panel that a text covers, its sides from 0 to 1."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        """Whether two texts would overprint each other."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top


def draw_panel(axis: Axes, moment: str, points: Points) -> None:
    """Draw predicted and control against observed moments into square axes."""
    limits, band = _limits(points), points.band
    many = len(points.names) > MANY
    look: dict[str, Any] = {"s": 5 if many else 15, "lw": 0, "rasterized": many}
    axis.fill_between(limits, limits - band, limits + band, color=CEILING, alpha=0.18, lw=0, zorder=0)
    axis.plot(limits, limits, color=ink(axis), lw=0.8, zorder=1)
    axis.scatter(points.observed, points.baseline, color=BASELINE, alpha=0.6, zorder=2, **look)
    axis.scatter(points.observed, points.predicted, color=MODEL, alpha=0.5 if many else 0.85, zorder=3, **look)
    axis.set(xlim=limits, ylim=limits, xlabel=_label(moment, points), title=moment)
    axis.set_box_aspect(1)
    box = _write_corner(axis, points, limits)
    _name_furthest(axis, points, limits, box)


def _label(moment: str, points: Points) -> str:
    n_drawn, pairs = len(points.names), moment == "correlation"
    if n_drawn == points.n_all:
        return "observed"
    what = "pairs,\nmost variable first" if pairs else "points"
    return f"observed ({n_drawn:,} of {points.n_all:,} {what})"


def _limits(points: Points) -> np.ndarray:
    values = np.concatenate([points.predicted, points.baseline, points.observed])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    margin = 0.06 * (high - low) + 1e-6
    return np.array([low - margin, high + margin])


def _write_corner(axis: Axes, points: Points, limits: np.ndarray) -> Box:
    """Write score and squared correlations above or below the diagonal, where fewer points are hidden."""
    corners = Box(0.0, 0.69, 0.5, 1.0), Box(0.5, 0.0, 1.0, 0.31)
    x = np.tile(_fraction(points.observed, limits), 2)
    y = _fraction(np.concatenate([points.predicted, points.baseline]), limits)
    hidden = [((x > box.left) & (x < box.right) & (y > box.bottom) & (y < box.top)).sum() for box in corners]
    above = hidden[0] <= hidden[1]
    lines = [
        (f"score {_score(points)}", MODEL),
        (f"predicted $R^2$ {_r2(points.predicted, points.observed)}", MODEL),
        (f"{points.baseline_name} $R^2$ {_r2(points.baseline, points.observed)}", BASELINE),
    ]
    for line, (text, colour) in enumerate(lines):
        axis.text(
            0.03 if above else 0.97,
            0.97 - 0.09 * line if above else 0.21 - 0.09 * line,
            text,
            transform=axis.transAxes,
            ha="left" if above else "right",
            va="top" if above else "bottom",
            color=text_colour(axis, colour),
            fontsize="small",
            zorder=5,
            bbox={"facecolor": axis.get_facecolor(), "alpha": 0.8, "lw": 0, "pad": 1.5},
        )
    return corners[0 if above else 1]


def _name_furthest(axis: Axes, points: Points, limits: np.ndarray, taken: Box) -> None:
    """Name the features furthest off, leaving out names that would fall on another text."""
    error = np.abs(points.predicted - points.observed)
    boxes = [taken]
    for i in np.argsort(-error):
        if len(boxes) > N_NAMED or error[i] <= 2 * points.band:
            return
        x, y = _fraction(np.array([points.observed[i], points.predicted[i]]), limits)
        lines = points.names[i].split(", ")  # of a pair one below the other, which fits more often
        place = _free_side(float(x), float(y), lines, boxes)
        if place is None:
            continue
        box, right = place
        boxes.append(box)
        axis.annotate(
            ",\n".join(lines),
            (points.observed[i], points.predicted[i]),
            xytext=(5 if right else -5, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize="x-small",
            color=ink(axis),
            zorder=4,
            path_effects=[withStroke(linewidth=2, foreground=axis.get_facecolor())],
        )


def _free_side(x: float, y: float, lines: Sequence[str], boxes: Sequence[Box]) -> tuple[Box, bool] | None:
    """The box of a name beside (x, y), and whether it is on the right; ``None`` if both sides are taken."""
    width, half = 0.03 * (max(len(line) for line in lines) + 1), 0.04 * len(lines)
    away = y < x  # the side that looks away from the diagonal, where most points are
    for right in (away, not away):
        box = Box(x if right else x - width, y - half, x + width if right else x, y + half)
        if box.left >= 0 and box.right <= 1 and not any(box.overlaps(other) for other in boxes):
            return box, right
    return None


def _fraction(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Where values lie between the limits, from 0 to 1."""
    return (values - limits[0]) / (limits[1] - limits[0])


def _score(points: Points) -> str:
    """Where the mean absolute error lies between that of the baseline, 0, and that of a replicate, 1."""
    predicted, baseline, replicate = points.errors
    return f"{(baseline - predicted) / (baseline - replicate):z.2f}" if baseline > replicate else "undefined"


def _r2(predicted: np.ndarray, observed: np.ndarray) -> str:
    if len(observed) < 2 or predicted.std() == 0 or observed.std() == 0:
        return "undefined"
    return f"{np.corrcoef(predicted, observed)[0, 1] ** 2:.2f}"
