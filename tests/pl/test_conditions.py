import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import LogNorm, to_hex

import scgap
from scgap.pl._style import PALETTE


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def legend(axis):
    """Classes and their colours."""
    drawn = axis.get_legend()
    return {
        text.get_text(): to_hex(c.get_facecolor()[0])
        for text, c in zip(drawn.get_texts(), axis.collections, strict=True)
    }


def test_every_condition_is_a_point_and_control_the_origin(fitted):
    axis = plt.subplots(figsize=(16, 12))[1]  # there is room for all labels
    scgap.pl.conditions(fitted, ax=axis)
    table = fitted.uns["scgap"]["conditions"]
    points = np.concatenate([np.asarray(c.get_offsets()) for c in axis.collections])
    assert points.shape == (len(table), 2)
    embedding = fitted.uns["scgap"]["embedding"]
    _, _, directions = np.linalg.svd(embedding - embedding.mean(0), full_matrices=False)
    # The sign of a component is free.
    np.testing.assert_allclose(np.abs(points), np.abs(embedding @ directions[:2].T), atol=1e-4)
    assert [line.get_xydata().tolist() for line in axis.lines] == [[[0.0, 0.0]]]
    labels = {text.get_text() for text in axis.texts}
    assert labels == {"control", *table["condition_label"]}
    assert legend(axis) == {"seen": PALETTE[0].lower()}


def test_tiers_columns_doses_and_classes_are_colours(screen, settings):
    scgap.pp.split(
        screen,
        holdout={"perturbation": ["drug_2"], "dose_value": [100.0]},
        dose_col="dose_value",
        group_col="cell_line",
    )
    scgap.tl.fit_transport(screen, **settings)
    assert list(legend(scgap.pl.conditions(screen, show=False))) == ["seen", "extrapolated dose"]
    assert list(legend(scgap.pl.conditions(screen, color="cell_line", show=False))) == ["line_1", "line_2"]
    classes = legend(
        scgap.pl.conditions(screen, color={"drug_1": "kinase", "drug_2": "HDAC"}, labels=False, show=False)
    )
    assert list(classes) == ["HDAC", "kinase", "unknown"]
    axis = scgap.pl.conditions(screen, color="dose_value", labels=False, show=False)
    (points,) = axis.collections
    np.testing.assert_array_equal(points.get_array(), screen.uns["scgap"]["conditions"]["dose_value"])
    assert isinstance(points.norm, LogNorm)
    assert [text.get_text() for text in axis.texts] == ["control"]


def test_many_classes_have_other_markers_too(fitted):
    axis = scgap.pl.conditions(fitted, color="condition_label", show=False)
    looks = {(to_hex(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in axis.collections}
    assert len(looks) == len(fitted.uns["scgap"]["conditions"]) > len(PALETTE)


def test_conditions_without_a_vector_are_left_out(screen, settings):
    scgap.pp.split(screen, holdout={"perturbation": ["drug_2"]}, dose_col="dose_value", group_col="cell_line")
    scgap.tl.fit_transport(screen, **settings)
    table, embedding = screen.uns["scgap"]["conditions"], screen.uns["scgap"]["embedding"]
    np.testing.assert_array_equal(np.isnan(embedding).all(1), table["perturbation"] == "drug_2")
    axis = scgap.pl.conditions(screen, show=False)
    assert sum(len(c.get_offsets()) for c in axis.collections) == (table["perturbation"] != "drug_2").sum()


def test_one_condition_is_drawn():
    adata = scgap.datasets.simulate_screen(300, n_drugs=1, doses=[100.0], n_groups=1, n_features=5)
    scgap.tl.fit_transport(adata, n_iters=1, hidden=(4,), progress=False)
    axis = scgap.pl.conditions(adata, show=False)
    assert axis.get_xlabel() == "embedding PC1 (0%)"


def test_unknown_colours_are_refused(fitted, refused):
    with refused(fitted, KeyError, "'dose' is not in the table of conditions", "'dose_value'"):
        scgap.pl.conditions(fitted, color="dose", show=False)


def test_classes_may_be_called_as_the_reference_or_a_tier(fitted):
    color = {"drug_1": "control", "drug_2": "seen", "drug_3": float("nan")}
    axis = scgap.pl.conditions(fitted, color=color, labels=False, show=False)
    assert list(legend(axis)) == ["control", "seen", "unknown"]
    assert sum(len(c.get_offsets()) for c in axis.collections) == len(fitted.uns["scgap"]["conditions"])
    assert list(legend(scgap.pl.conditions(fitted, color={"drug_1": 7}, show=False))) == ["7", "unknown"]


def test_labels_that_are_numbers_have_classes(screen):
    screen.obs["perturbation"] = screen.obs["perturbation"].map({"control": 0, "drug_1": 1, "drug_2": 2, "drug_3": 3})
    scgap.tl.fit_transport(screen, reference_key=0, n_iters=0, hidden=(4,), progress=False)
    axis = scgap.pl.conditions(screen, color={1: "x", 2: "y", 3: "x"}, labels=False, show=False)
    assert list(legend(axis)) == ["x", "y"]


def test_conditions_without_the_dose_that_colours_are_grey(screen):
    """Of two members, one may not be there."""
    is_single = screen.obs["dose_value"] == 100.0
    screen.obs["drug_b"] = np.where(is_single | (screen.obs["perturbation"] == "control"), "control", "other")
    screen.obs["dose_b"] = np.where(screen.obs["drug_b"] == "control", np.nan, 5.0)
    columns = {"target_col": ["perturbation", "drug_b"], "dose_col": ["dose_value", "dose_b"]}
    scgap.tl.fit_transport(screen, **columns, n_iters=0, hidden=(4,), progress=False)
    axis = scgap.pl.conditions(screen, color="dose_b", labels=False, show=False)
    grey, coloured = axis.collections
    assert len(grey.get_offsets()) == len(coloured.get_offsets()) == 3
    assert isinstance(coloured.norm, LogNorm)
    screen.obs[["drug_b", "dose_b"]] = ["control", np.nan]
    scgap.tl.fit_transport(screen, **columns, n_iters=0, hidden=(4,), progress=False)
    (grey,) = scgap.pl.conditions(screen, color="dose_b", labels=False, show=False).collections
    assert len(grey.get_offsets()) == 6
