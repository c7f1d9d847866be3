import anndata
import matplotlib.pyplot as plt
import numpy as np
import scanpy as sc

import scgap


def test_predictions_go_through_scanpy(fitted):
    # Warnings are errors here as everywhere: not one of these steps may complain of what scgap wrote.
    scgap.tl.predict(fitted, {"perturbation": "drug_3", "dose_value": 1_000.0})
    predicted = fitted[fitted.obs["scgap_transported"]].copy()
    predicted.X = predicted.layers["scgap"]
    both = anndata.concat({"observed": fitted, "predicted": predicted}, label="origin", index_unique="-")
    assert both.n_obs == fitted.n_obs + (fitted.obs["perturbation"] == "control").sum()

    sc.pp.pca(both, n_comps=5)
    sc.pp.neighbors(both)
    sc.tl.umap(both, maxiter=5)
    assert np.isfinite(both.obsm["X_umap"]).all()
    axis = sc.pl.umap(both, color="origin", show=False)
    assert len(axis.collections[0].get_offsets()) == both.n_obs
    # In the layer of the fitted object, whose other rows are the observed cells.
    axis = sc.pl.violin(fitted, "feature_3", groupby="perturbation", layer="scgap", show=False)
    assert axis.get_ylabel() == "feature_3"
    plt.close("all")

    means = sc.get.aggregate(fitted, by=["perturbation", "scgap_transported"], func="mean", layer="scgap")
    moved = means[means.obs["scgap_transported"].astype(bool)]
    assert moved.obs["perturbation"].tolist() == ["control"]
    np.testing.assert_allclose(moved.layers["mean"][0], predicted.X.mean(axis=0), rtol=1e-4, atol=1e-5)
    origins = sc.get.aggregate(both, by="origin", func=["mean", "count_nonzero"])
    assert origins.obs_names.tolist() == ["observed", "predicted"]
    np.testing.assert_allclose(origins["predicted"].layers["mean"], moved.layers["mean"], rtol=1e-4, atol=1e-5)
