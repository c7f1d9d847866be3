"""Groups that were not trained on: which trained ones stand in for them."""

from collections.abc import Collection, Mapping
from operator import eq

import numpy as np
from scipy.spatial.distance import cdist

from scgap._conditions import Group

N_NEAREST = 8  # trained groups that stand in for another one; not tuned, for no data here have more
TINY = 1e-12  # share of the largest squared distance below which a cell is where the controls are


def stand_in_groups(trained: Collection[Group], group: Group) -> list[Group]:
    """A group itself, if each of its labels was trained; else those trained groups that share the most labels.

    Itself, too, where it is not known which were trained: maps of earlier versions hold no means of controls.
    """
    if not trained or all(label in labels for label, labels in zip(group, zip(*trained, strict=True), strict=True)):
        return [group]
    n_common = {other: sum(map(eq, group, other)) for other in trained}
    most = max(n_common.values())
    return [other for other, n in n_common.items() if n == most]


def group_shares(
    control_means: Mapping[Group, np.ndarray], points: np.ndarray, group: Group
) -> dict[Group, np.ndarray]:
    """Which trained groups a group is moved as, and with what share of each point (n_cells,).

    Those of `stand_in_groups`: of several, the N_NEAREST whose training controls, by their means (n_points,), are
    nearest to a cell, by their inverse squared distance to it (Shepard 1968). What a cell is tells more of what becomes
    of it than that its group is new.
    """
    groups = stand_in_groups(control_means, group)
    if groups == [group]:
        return {group: np.ones(len(points), np.float32)}
    means = np.array([control_means[other] for other in groups])
    squares = cdist(points, means, "sqeuclidean")
    farthest = squares.max(1, keepdims=True)
    nearness = 1.0 / np.maximum(squares / np.where(farthest > 0, farthest, 1.0), TINY)
    if len(groups) > N_NEAREST:
        least = np.partition(nearness, -N_NEAREST, axis=1)[:, [-N_NEAREST]]
        nearness[nearness < least] = 0.0
    shares = (nearness / nearness.sum(1, keepdims=True)).astype(np.float32)
    return dict(zip(groups, shares.T, strict=True))
