# Writes transport_<version>.safetensors and what it predicts, of the present format: run it once when
# `scgap._model.FORMAT_VERSION` has got a new number, and keep the files of the earlier ones as they are.
import json
from pathlib import Path

import scgap
from scgap._model import FORMAT_VERSION

FOLDER = Path(__file__).parent
QUERIES = [{"perturbation": "drug_1", "dose_value": 10.0}, {"perturbation": "drug_2", "dose_value": 300.0}]

if __name__ == "__main__":  # pytest looks for examples in every file
    adata = scgap.datasets.simulate_screen(300, n_features=4, n_drugs=2, doses=[10.0, 1_000.0], n_groups=2)
    fit = {"dose_col": "dose_value", "group_col": "cell_line", "hidden": (4,), "n_iters": 200, "batch_size": 64}
    fit |= {"learning_rate": 1e-2, "n_maps": 2, "condition_folds": 2, "progress": False}
    scgap.tl.fit_transport(adata, **fit, encoding=adata.uns["drug_descriptors"])
    scgap.write_transport(adata, FOLDER / f"transport_{FORMAT_VERSION}.safetensors")

    cells = adata[adata.obs["perturbation"] == "control"][:6].copy()
    expected = []
    for query in QUERIES:
        scgap.tl.predict(cells, query)
        expected.append({"query": query, "predicted": cells.layers["scgap"].round(5).tolist()})
    content = {"cells": cells.X.tolist(), "cell_line": cells.obs["cell_line"].tolist(), "expected": expected}
    (FOLDER / f"transport_{FORMAT_VERSION}.json").write_text(json.dumps(content) + "\n")
