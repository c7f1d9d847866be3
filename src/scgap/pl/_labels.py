"""Labels beside points, left out where there is no room."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.typing import ColorType
from scipy.spatial import cKDTree

# In typographic points, as are sizes of text.
REACH = 5.0  # from a point to its label
RADIUS = 3.0  # of a drawn point, which labels leave free
SIDES = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)])


def write_labels(axis: Axes, points: np.ndarray, names: Sequence[str], colours: Sequence[ColorType]) -> None:
    """Write names of points (n, 2) inside the axes, the first one first and then the loneliest; "" is none.

    A name that would cover a point, or another name, wherever it is put is left out. Call it last: where there is room
    is known once all else is drawn.
    """
    axis.figure.canvas.figure.draw_without_rendering()  # settles the layout
    unit = axis.figure.dpi / 72
    where = axis.transData.transform(points)
    taken = [np.hstack([place - unit * RADIUS, place + unit * RADIUS]) for place in where]
    to_next, _ = cKDTree(where).query(where, k=[2])
    to_next[0] = np.inf
    for i in np.argsort(-to_next[:, 0], kind="stable"):
        if not names[i]:
            continue
        label = _label(axis, names[i], points[i], colours[i])
        boxes = _boxes(where[i], np.array(label.get_window_extent().size), unit * REACH)
        free = np.flatnonzero(_is_inside(boxes, axis) & ~_covers(boxes, np.array(taken)))
        if len(free):
            _move(label, SIDES[free[0]])
            taken.append(boxes[free[0]])
        else:
            label.remove()


def _label(axis: Axes, name: str, point: np.ndarray, colour: ColorType) -> Annotation:
    label = axis.annotate(
        name,
        (float(point[0]), float(point[1])),
        textcoords="offset points",
        xytext=(0, 0),
        fontsize="x-small",
        color=colour,
    )
    label.set_in_layout(False)  # it lies inside the axes, which must keep their place
    return label


def _move(label: Annotation, side: np.ndarray) -> None:
    x, y = side * REACH / np.hypot(*side)
    label.set_position((x, y))
    label.set(ha=("center", "left", "right")[side[0]], va=("center", "bottom", "top")[side[1]])


def _boxes(place: np.ndarray, size: np.ndarray, reach: float) -> np.ndarray:
    """What a text of a size covers on each side of a place: left, bottom, right, top (n_sides, 4)."""
    anchor = place + SIDES * reach / np.linalg.norm(SIDES, axis=1, keepdims=True)
    corner = anchor - size * (1 - SIDES) / 2
    return np.hstack([corner, corner + size])


def _is_inside(boxes: np.ndarray, axis: Axes) -> np.ndarray:
    return np.asarray(((boxes[:, :2] >= axis.bbox.min) & (boxes[:, 2:] <= axis.bbox.max)).all(axis=1))


def _covers(boxes: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Which boxes (n_sides, 4) overlap any of those taken (n, 4)."""
    boxes = boxes[:, None]
    return np.asarray(((boxes[..., :2] < taken[:, 2:]) & (taken[:, :2] < boxes[..., 2:])).all(axis=2).any(axis=1))
