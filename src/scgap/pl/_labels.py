"""Names beside points, left out where there is no room: the one way in which all plots place them."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from matplotlib.typing import ColorType
from scipy.spatial import cKDTree

from scgap.pl._style import halo

# In typographic points, as are sizes of text.
REACH = 5.0  # from a point to its name
RADIUS = 3.0  # of a drawn point, which names leave free
PAD = 1.0  # between two texts
SIDES = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)])


def write_labels(
    axis: Axes,
    points: np.ndarray,
    names: Sequence[str],
    colours: Sequence[ColorType],
    *,
    order: Iterable[int] | None = None,
    most: int | None = None,
    others: np.ndarray | None = None,
    taken: Sequence[Bbox] = (),
    may_cover: bool = False,
) -> None:
    """Write names of points (n, 2) inside the axes, ``most`` at most; "" is none.

    In the given order of points, by default the first one first and then the loneliest. A name stands on the side of
    its point on which it covers the fewest points, ``others`` (m, 2) among them, and no other name or box that is
    ``taken``; where there is no such side, or unless it ``may_cover`` points each of them covers one, it is left out.
    Call it last: where there is room is known once all else is drawn.
    """
    axis.figure.canvas.figure.draw_without_rendering()  # settles the layout
    unit = axis.figure.dpi / 72
    where = axis.transData.transform(points)
    hidden = where if others is None else np.vstack([where, axis.transData.transform(others)])
    drawn = np.hstack([hidden - unit * RADIUS, hidden + unit * RADIUS])
    boxes_taken = [np.array(box.extents) for box in taken]
    n_left = len(points) if most is None else most
    for i in _loneliest_first(where) if order is None else order:
        if not names[i] or not n_left:
            continue
        label = _label(axis, names[i], points[i], colours[i])
        boxes = _boxes(where[i], np.array(label.get_window_extent().size), unit * REACH)
        covered = _overlaps(boxes, drawn).sum(axis=1)
        free = _is_inside(boxes, axis) & ~_overlaps(_padded(boxes, unit * PAD), np.array(boxes_taken)).any(axis=1)
        found = np.flatnonzero(free if may_cover else free & (covered == 0))
        if not len(found):
            label.remove()
            continue
        side = found[np.argmin(covered[found])]
        _move(label, SIDES[side])
        boxes_taken.append(boxes[side])
        n_left -= 1


def _loneliest_first(where: np.ndarray) -> np.ndarray:
    """The points (n, 2) in order of the room around them, but for the first one, which stays the first."""
    to_next, _ = cKDTree(where).query(where, k=[2])
    to_next[0] = np.inf
    return np.argsort(-to_next[:, 0], kind="stable")


def _label(axis: Axes, name: str, point: np.ndarray, colour: ColorType) -> Annotation:
    label = axis.annotate(
        name,
        (float(point[0]), float(point[1])),
        textcoords="offset points",
        xytext=(0, 0),
        fontsize="x-small",
        color=colour,
        zorder=4,
        path_effects=halo(axis),
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


def _padded(boxes: np.ndarray, pad: float) -> np.ndarray:
    return boxes + np.array([-pad, -pad, pad, pad])


def _is_inside(boxes: np.ndarray, axis: Axes) -> np.ndarray:
    return np.asarray(((boxes[:, :2] >= axis.bbox.min) & (boxes[:, 2:] <= axis.bbox.max)).all(axis=1))


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which boxes (n_sides, 4) overlap which of the others (n, 4): (n_sides, n)."""
    boxes, others = boxes[:, None], others.reshape(-1, 4)
    return np.asarray(((boxes[..., :2] < others[:, 2:]) & (others[:, :2] < boxes[..., 2:])).all(axis=2))
