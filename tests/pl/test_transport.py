import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc
from matplotlib.colors import to_hex
from matplotlib.quiver import Quiver

import scgap
from scgap.pl._plane import Shown, principal_axes, principal_plane
from scgap.pl._style import BASELINE, MODEL, OBSERVED

QUERY = {"perturbation": "drug_3", "dose_value": 1_000.0}


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def adata(fitted):
    scgap.tl.predict(fitted, QUERY)
    return fitted


def points(axis):
    """Kind -> coordinates (n, 2) and colour."""
    drawn = [c for c in axis.collections if not isinstance(c, Quiver)]
    return {c.get_label(): (np.asarray(c.get_offsets()), to_hex(c.get_facecolor()[0])) for c in drawn}


def arrows(axis):
    """Starts and ends (n, 2)."""
    found = [c for c in axis.collections if isinstance(c, Quiver)]
    if not found:
        return np.empty((0, 2)), np.empty((0, 2))
    starts = np.column_stack([found[0].X, found[0].Y])
    return starts, starts + np.column_stack([found[0].U, found[0].V])


def held_out(adata, **values):
    rows = np.all([adata.obs[column] == value for column, value in values.items()], axis=0)
    return rows & (adata.obs["split"] == "test").to_numpy()


def test_source_predicted_and_observed_cells_are_points(adata):
    axis = scgap.pl.transport(adata, show=False)
    source, observed = held_out(adata, perturbation="control"), held_out(adata, **QUERY)
    drawn = points(axis)
    assert {name: (len(some), colour) for name, (some, colour) in drawn.items()} == {
        "source": (source.sum(), BASELINE.lower()),
        "predicted": (source.sum(), MODEL.lower()),
        "observed": (observed.sum(), OBSERVED.lower()),
    }
    assert list(drawn)[-1] == "observed"  # the fewest lie on top
    assert axis.get_title() == "drug_3 1000"
    assert axis.get_xlabel().startswith("PC1 (")
    # Distances in the plane are those along two directions of the features.
    cells = adata.layers["scgap"][source].astype(float)
    directions = np.linalg.lstsq(cells - cells.mean(0), drawn["predicted"][0] - drawn["predicted"][0].mean(0))[0]
    np.testing.assert_allclose(directions.T @ directions, np.eye(2), atol=1e-3)
    for name, matrix in (("source", adata.X[source]), ("observed", adata.X[observed])):
        np.testing.assert_allclose(
            drawn[name][0] - drawn["predicted"][0].mean(0), (matrix - cells.mean(0)) @ directions, atol=1e-2
        )


def test_arrows_are_mean_ways_of_source_cells(adata):
    axis = scgap.pl.transport(adata, show=False)
    starts, ends = arrows(axis)
    assert 10 <= len(starts) <= 30
    source, predicted = (points(axis)[name][0] for name in ("source", "predicted"))
    # Every arrow leaves from within the source cells, and where many do, to where they went.
    near = np.linalg.norm(source[:, None] - starts, axis=2)
    for j, (start, end) in enumerate(zip(starts, ends, strict=True)):
        closest = np.argsort(near[:, j])[:3]
        assert near[closest, j].max() < 0.3 * np.ptp(source, axis=0).max()
        way = (predicted - source)[closest].mean(0)
        assert np.linalg.norm(end - start - way) < np.ptp(source, axis=0).max() / 2
    one_start, one_end = arrows(scgap.pl.transport(adata, n_arrows=1, show=False))
    np.testing.assert_allclose([one_start[0], one_end[0]], [source.mean(0), predicted.mean(0)], atol=1e-5)
    assert len(arrows(scgap.pl.transport(adata, n_arrows=0, show=False))[0]) == 0


def test_arrows_of_a_known_shift_are_the_shift(adata):
    moved = adata.obs["scgap_transported"].to_numpy()
    adata.layers["scgap"][moved] = adata.X[moved] + np.arange(adata.n_vars)
    axis = scgap.pl.transport(adata, show=False)
    starts, ends = arrows(axis)
    assert np.ptp(ends - starts, axis=0).max() < 1e-4
    assert np.linalg.norm(ends[0] - starts[0]) <= np.linalg.norm(np.arange(adata.n_vars))


def test_predicted_cells_have_no_say_in_the_plane(adata):
    before = points(scgap.pl.transport(adata, show=False))
    adata.layers["scgap"][adata.obs["scgap_transported"].to_numpy()] *= 10.0
    after = points(scgap.pl.transport(adata, show=False))
    for name in ("source", "observed"):
        np.testing.assert_array_equal(after[name][0], before[name][0])
    assert (after["predicted"][0] != before["predicted"][0]).any()


def test_both_populations_count_alike_in_the_plane():
    generator = np.random.default_rng(0)
    source, observed = generator.normal(size=(5_000, 20)), generator.normal(size=(10, 20))
    observed[:, 3] += 12.0
    points, names = principal_plane(Shown(source, source, observed))
    assert points.observed[:, 0].mean() - points.source[:, 0].mean() == pytest.approx(12, abs=1.5) or (
        points.source[:, 0].mean() - points.observed[:, 0].mean() == pytest.approx(12, abs=1.5)
    )
    assert names[0] > "PC1 (5"


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (5, 1), (1, 5)])
def test_principal_axes_are_those_of_the_singular_values(shape):
    points = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[1])
    points -= points.mean(0) if shape[0] > 1 else 0
    directions, shares = principal_axes(points)
    _, spread, expected = np.linalg.svd(points, full_matrices=False)
    n = min(2, *shape)
    np.testing.assert_allclose(np.abs(directions[:, :n]), np.abs(expected[:n].T), atol=1e-8)
    np.testing.assert_allclose(shares[:n], (spread**2 / (spread**2).sum())[:n])
    assert directions.shape == (shape[1], 2)
    assert not directions[:, n:].any()


def test_a_stored_pca_places_all_cells(screen, settings):
    sc.pp.pca(screen, n_comps=8)
    scgap.tl.fit_transport(screen, **settings)
    scgap.tl.predict(screen, QUERY)
    axis = scgap.pl.transport(screen, basis="X_pca", show=False)
    drawn, source, observed = points(axis), held_out(screen, perturbation="control"), held_out(screen, **QUERY)
    np.testing.assert_allclose(drawn["source"][0], screen.obsm["X_pca"][source, :2], atol=1e-5)
    np.testing.assert_allclose(drawn["observed"][0], screen.obsm["X_pca"][observed, :2], atol=1e-5)
    expected = (screen.layers["scgap"][source] - screen.X.mean(0)) @ screen.varm["PCs"][:, :2]
    np.testing.assert_allclose(drawn["predicted"][0], expected, atol=1e-3)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("PCA1", "PCA2")
    reordered = points(scgap.pl.transport(screen[:, ::-1].copy(), basis="X_pca", show=False))
    for name, (some, _) in drawn.items():
        np.testing.assert_allclose(reordered[name][0], some, atol=1e-4)


def test_a_map_in_an_embedding_is_drawn_there(screen, settings):
    screen.obsm["X_other"] = screen.X[:, ::-1].copy()
    scgap.tl.fit_transport(screen, use_rep="X_other", **{**settings, "n_iters": 0})
    with pytest.warns(UserWarning, match="no decoder"):
        scgap.tl.predict(screen, QUERY)
    source = held_out(screen, perturbation="control")
    screen.obsm["X_scgap"][source] += 1.0
    drawn = points(scgap.pl.transport(screen, basis="X_other", show=False))
    np.testing.assert_array_equal(drawn["predicted"][0], screen.obsm["X_scgap"][source, :2])
    np.testing.assert_array_equal(drawn["source"][0], screen.obsm["X_other"][source, :2])
    assert set(points(scgap.pl.transport(screen, show=False))) == {"source", "predicted", "observed"}


def test_what_was_never_measured_is_drawn_without_observed_cells(fitted):
    scgap.tl.predict(fitted, {**QUERY, "dose_value": 300.0})
    axis = scgap.pl.transport(fitted, show=False)
    assert list(points(axis)) == ["source", "predicted"]
    assert len(arrows(axis)[0]) > 5
    assert axis.get_title() == "drug_3 300"


def test_one_group_and_another_layer(fitted):
    scgap.tl.predict(fitted, QUERY, key_added="moved")
    axis = scgap.pl.transport(fitted, {**QUERY, "cell_line": "line_2"}, layer="moved", show=False)
    assert len(points(axis)["source"][0]) == held_out(fitted, perturbation="control", cell_line="line_2").sum()
    assert axis.get_title() == "drug_3 1000, line_2"


def test_many_cells_are_drawn_in_part_and_the_same_part(adata, monkeypatch):
    monkeypatch.setattr(sys.modules["scgap.pl._transport"], "MOST_SHOWN", 20)
    one, other = (points(scgap.pl.transport(adata, show=False)) for _ in range(2))
    assert {name: len(some) for name, (some, _) in one.items()} == dict.fromkeys(one, 20)
    for name in one:
        np.testing.assert_array_equal(one[name][0], other[name][0])


def test_several_modalities_are_drawn_together(fitted, settings):
    from mudata import MuData

    halves = {"a": fitted[:, :10].copy(), "b": fitted[:, 10:].copy()}
    for half in halves.values():
        half.uns.clear()
    mdata = MuData(halves)
    scgap.tl.fit_transport(mdata, mod=["a", "b"], **settings)
    scgap.tl.predict(mdata, QUERY, mod=["a", "b"])
    axis = scgap.pl.transport(mdata, mod=["a", "b"], show=False)
    assert set(points(axis)) == {"source", "predicted", "observed"}


def test_dark_styles_have_light_arrows(adata):
    with plt.style.context("dark_background"):
        axis = scgap.pl.transport(adata, show=False)
    (drawn,) = (c for c in axis.collections if isinstance(c, Quiver))
    assert to_hex(drawn.get_facecolor()[0]) == "#ffffff"


def test_what_it_returns_and_leaves_alone(adata, same, monkeypatch):
    before, shown = adata.copy(), []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    assert scgap.pl.transport(adata) is None
    assert len(shown) == 1
    assert isinstance(scgap.pl.transport(adata, show=False), plt.Axes)
    assert isinstance(scgap.pl.transport(adata, return_fig=True), plt.Figure)
    given = plt.subplots()[1]
    assert scgap.pl.transport(adata, ax=given) is given
    assert len(shown) == 1
    assert same(adata, before)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"key": "other"}, KeyError, ("'other' is not in adata.uns", "Fit a map first")),
        ({"layer": "moved"}, KeyError, ("'moved' is not in adata.layers", "Predict first")),
        ({"basis": "X_tsne"}, KeyError, ("'X_tsne' is not in adata.obsm", "leave basis out")),
        (
            {"basis": "X_umap"},
            ValueError,
            ("'X_umap' has no place for predicted cells", "Those that can: 'X_pca'", "scgap.tl.join_predictions"),
        ),
        ({"basis": "X_pca"}, ValueError, ("not the projection of the fitted features", "sc.pp.pca")),
        ({"n_arrows": -1}, ValueError, ("n_arrows=-1", "from 0 on")),
        ({"condition": "drug_3"}, ValueError, ("leaves 'dose_value' open",)),
    ],
)
def test_wrong_arguments_are_refused(adata, refused, arguments, error, words):
    generator = np.random.default_rng(0)
    adata.obsm["X_umap"], adata.obsm["X_pca"] = generator.normal(size=(2, adata.n_obs, 2))
    adata.varm["PCs"] = generator.normal(size=(adata.n_vars, 2))
    with refused(adata, error, *words):
        scgap.pl.transport(adata, show=False, **arguments)
    assert plt.get_fignums() == []


def test_drawing_loads_no_library_for_training(adata, tmp_path):
    adata.write_h5ad(tmp_path / "screen.h5ad")
    script = """
import sys, anndata, matplotlib, scgap
matplotlib.use("agg")
scgap.pl.transport(anndata.read_h5ad(sys.argv[1]), show=False)
print(*({"anndata", "jax", "flax", "optax", "ott"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", script, tmp_path / "screen.h5ad"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["anndata"]
