"""One panel of moments: points, band, errors, and the names of the features furthest off."""

from math import floor, log10
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox

from scgap.pl._labels import write_labels
from scgap.pl._style import BASELINE, CEILING, MANY, MODEL, ink, shade, text_colour

N_NAMED = 3  # features furthest off that are named in a panel
N_TRIED = 30  # of which as many may find no place
MAX_NAME = 20  # letters of a line; longer names take two, and what is longer still is cut
MIN_GAIN = 0.05  # of a replicate's error: with less between it and the baseline, a score divides noise by noise
BAND_ALPHA = 0.18
BREAKS = " _:"
CORNERS: tuple[Literal["upper left"], Literal["lower right"]] = ("upper left", "lower right")  # away from the diagonal


class Errors(NamedTuple):
    """Mean absolute errors over the points, all of equally many cells; NaN where these are too few."""

    predicted: float
    baseline: float
    replicate: float
    """Of one half of the observed cells as prediction of the other."""


class Points(NamedTuple):
    """One moment of every feature, or pair of features, in every group."""

    names: np.ndarray
    """(n_points,) features; those of a pair one below the other."""
    predicted: np.ndarray
    baseline: np.ndarray
    observed: np.ndarray
    errors: Errors
    n_all: int
    """Points with those that are not drawn."""
    baseline_name: str


def draw_panel(axis: Axes, moment: str, points: Points) -> None:
    """Draw predicted and simple against observed moments into square axes."""
    limits, band = _limits(points), points.errors.replicate
    many = len(points.names) > MANY
    look: dict[str, Any] = {"s": 5 if many else 15, "lw": 0, "rasterized": many}
    axis.fill_between(limits, limits - band, limits + band, color=CEILING, alpha=BAND_ALPHA, lw=0, zorder=0)
    axis.plot(limits, limits, color=ink(axis), lw=0.8, zorder=1)
    axis.scatter(points.observed, points.baseline, color=shade(axis, BASELINE), alpha=0.6, zorder=2, **look)
    axis.scatter(
        points.observed, points.predicted, color=shade(axis, MODEL), alpha=0.5 if many else 0.85, zorder=3, **look
    )
    axis.set(xlim=limits, ylim=limits, xlabel=_label(moment, points))
    axis.set_title(moment, fontsize="medium")
    axis.set_box_aspect(1)


def write_panel(axis: Axes, points: Points) -> None:
    """Write errors and names where they hide least; texts are measured, so the layout has to be settled."""
    if not len(points.names):
        text = axis.text(0.5, 0.5, "no feature varies\nin enough cells", transform=axis.transAxes, fontsize="small")
        text.set(ha="center", va="center", color=ink(axis))
        return
    pixels = [
        axis.transData.transform(np.column_stack([points.observed, values]))
        for values in (points.predicted, points.baseline)
    ]
    hidden = np.concatenate(pixels)
    legend = _write_errors(axis, points, hidden)
    _name_furthest(axis, points, legend)


def error_texts(errors: Errors, baseline_name: str) -> tuple[str, list[str]]:
    """A heading with the score, or why there is none, and a line for each error."""
    predicted, baseline, replicate = errors
    if np.isnan(replicate):
        return "too few cells for errors", ["predicted", baseline_name]  # nor is there a band
    decimals = max(0, 1 - floor(log10(max(errors)))) if max(errors) > 0 else 0
    names = "predicted", baseline_name, "replicate"
    lines = [f"{name} {error:,.{decimals}f}" for name, error in zip(names, errors, strict=True)]
    if baseline <= (1.0 + MIN_GAIN) * replicate:
        return "error (nothing to gain)", lines
    score = (baseline - predicted) / (baseline - replicate)
    return f"error (score {score:z.{2 if abs(score) < 10 else 0}f})", lines


def _label(moment: str, points: Points) -> str:
    n_drawn = len(points.names)
    if n_drawn == points.n_all:
        return "observed"
    return f"observed\n({n_drawn:,} of {points.n_all:,} {'pairs' if moment == 'correlation' else 'points'})"


def _limits(points: Points) -> np.ndarray:
    values = np.concatenate([points.predicted, points.baseline, points.observed])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    margin = 0.06 * (high - low) + 1e-6
    return np.array([low - margin, high + margin])


def _write_errors(axis: Axes, points: Points, hidden: np.ndarray) -> Bbox:
    """Explain the colours by the errors, above or below the diagonal, where fewer points (n, 2) are hidden."""
    heading, lines = error_texts(points.errors, points.baseline_name)
    dot: dict[str, Any] = {"marker": "o", "ls": "", "markersize": 4, "markeredgewidth": 0}
    dots = [Line2D([], [], color=shade(axis, colour), **dot) for colour in (MODEL, BASELINE)]
    handles = [*dots, Patch(color=CEILING, lw=0)]
    legend = axis.legend(
        handles[: len(lines)],
        lines,
        title=heading,
        loc="upper left",
        labelcolor=[text_colour(axis, colour) for colour in (MODEL, BASELINE, CEILING)],
        alignment="left",
        fontsize="small",
        title_fontsize="small",
        edgecolor="none",
        framealpha=0.8,
        borderpad=0.2,
        borderaxespad=0.2,
        handlelength=0.8,
        handletextpad=0.4,
        labelspacing=0.2,
    )
    legend.get_title().set_color(ink(axis))
    boxes = []
    for corner in CORNERS:
        legend.set_loc(corner)
        boxes.append(legend.get_window_extent())
    best = int(np.argmin([_count_inside(hidden, box) for box in boxes]))
    legend.set_loc(CORNERS[best])
    return boxes[best]


def _name_furthest(axis: Axes, points: Points, legend: Bbox) -> None:
    """Name the features furthest off, if there are any."""
    error = np.abs(points.predicted - points.observed)
    order = np.argsort(-error, kind="stable")[:N_TRIED]
    write_labels(
        axis,
        np.column_stack([points.observed, points.predicted]),
        ["\n".join(_in_lines(line) for line in name.split("\n")) for name in points.names],
        [ink(axis)] * len(error),
        order=order[error[order] > 2 * points.errors.replicate],  # NaN: nobody knows what is far off
        most=N_NAMED,
        others=np.column_stack([points.observed, points.baseline]),
        taken=[legend],
        may_cover=True,
    )


def _in_lines(name: str) -> str:
    """A long name in two lines, broken after the last space, underscore or colon that the first one can hold.

    What tells one antibody from another, as in ``Cytoplasm_S6 (p-S235/S236)``, is often the end of its name.
    """
    start = max(name[:MAX_NAME].rfind(mark) for mark in BREAKS) + 1
    if len(name) <= MAX_NAME or not start:
        return _cut(name)
    return f"{name[:start].rstrip()}\n{_cut(name[start:])}"


def _cut(line: str) -> str:
    return line if len(line) <= MAX_NAME else f"{line[: MAX_NAME - 1]}…"


def _count_inside(pixels: np.ndarray, box: Bbox) -> int:
    return int(np.all((pixels > box.min) & (pixels < box.max), axis=1).sum())
