"""A tiny fit in a process of its own, which tests kill: `python killed_fit.py CHECKPOINT MAP`."""

import sys

import scgap

if __name__ == "__main__":  # pytest looks for examples in every file
    checkpoint, written = sys.argv[1:]
    adata = scgap.datasets.simulate_screen(240, n_drugs=2, doses=[100.0], n_groups=1, n_features=5)
    scgap.tl.fit_transport  # noqa: B018 (loads JAX, so that kills hit the fit and not the imports)
    print("ready", flush=True)
    scgap.tl.fit_transport(
        adata,
        n_iters=200,
        batch_size=16,
        hidden=(8,),
        n_maps=2,
        condition_folds=2,
        checkpoint=checkpoint,
        progress=False,
    )
    scgap.write_transport(adata, written)
