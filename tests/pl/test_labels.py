from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from scgap.pl._labels import RADIUS, write_labels


@pytest.fixture
def axis():
    axis = plt.subplots(layout="constrained")[1]
    yield axis
    plt.close("all")


def write(axis, points, names):
    """Scatter and name points; the extents in pixels of the names that found room."""
    axis.scatter(*np.transpose(points))
    write_labels(axis, np.asarray(points, float), names, ["black"] * len(names))
    axis.figure.canvas.draw()
    return {text.get_text(): text.get_window_extent() for text in axis.texts}


@pytest.mark.parametrize("n", [5, 30, 300])
def test_names_cover_nothing_and_stay_inside(axis, n):
    points = np.random.default_rng(0).normal(size=(n, 2))
    extents = write(axis, points, [f"drug_{i} 100 + drug_{i}" for i in range(n)])
    assert 5 <= len(extents) <= n
    assert not any(one.overlaps(other) for one, other in combinations(extents.values(), 2))
    for box in extents.values():
        assert axis.bbox.x0 <= box.x0 < box.x1 <= axis.bbox.x1
        assert axis.bbox.y0 <= box.y0 < box.y1 <= axis.bbox.y1
        assert not any(box.contains(x, y) for x, y in axis.transData.transform(points))


def test_a_name_is_beside_its_point(axis):
    points = [(0, 0), (1, 3), (4, 1), (5, 5)]
    extents = write(axis, points, list("abcd"))
    assert sorted(extents) == list("abcd")
    for name, point in zip("abcd", axis.transData.transform(points), strict=True):
        box = extents[name]
        away = np.maximum([box.x0 - point[0], box.y0 - point[1]], [point[0] - box.x1, point[1] - box.y1]).max()
        assert RADIUS < away * 72 / axis.figure.dpi < 4 * RADIUS


def test_the_first_name_is_written_and_lonely_points_come_before_crowded_ones(axis):
    crowd = np.random.default_rng(0).normal(scale=0.01, size=(50, 2))
    extents = write(axis, [*crowd, (9, 9)], ["first", *[f"in the crowd {i}" for i in range(1, 50)], "alone"])
    assert {"first", "alone"} <= set(extents)
    assert len(extents) < 51


def test_points_without_a_name_are_left_free(axis):
    assert list(write(axis, [(0, 0), (1, 1), (2, 2)], ["a", "", "c"])) == ["a", "c"]


def test_one_point_is_named(axis):
    assert list(write(axis, [(0, 0)], ["control"])) == ["control"]
