import numpy as np
import pandas as pd
import pytest
import requests
import scanpy as sc
from anndata import AnnData
from scipy import sparse


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever asks for a page is told that there is no network; the list of what was asked for."""
    asked = []

    def refuse(session, method, url, *args, **kwargs):
        asked.append(url)
        raise requests.exceptions.ConnectionError("no network in tests")

    monkeypatch.setattr(requests.Session, "request", refuse)
    return asked


@pytest.fixture
def datasetdir(tmp_path):
    """An empty folder of data sets, which scanpy and pertpy look in."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    before = sc.settings.datasetdir
    sc.settings.datasetdir = folder  # a property that monkeypatch could not put back
    yield folder
    sc.settings.datasetdir = before


@pytest.fixture
def make_counts():
    """Counts of 12 genes under these columns of obs, one row a cell."""

    def make(obs, seed=0, n_vars=12):
        obs = pd.DataFrame(obs)
        obs.index = [f"cell_{i}" for i in range(len(obs))]
        X = sparse.csr_matrix(np.random.default_rng(seed).poisson(3, (len(obs), n_vars)).astype(np.float32))
        return AnnData(X, obs=obs, var=pd.DataFrame(index=[f"gene_{i}" for i in range(n_vars)]))

    return make
