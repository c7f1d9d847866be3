import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex, to_rgb

import scgap
from scgap.pl._style import BASELINE, CEILING, MODEL, OBSERVED, PALETTE, class_colours, ink, shade

NAMES = ["drug_1", "drug_2", "drug_3"]


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def adata():
    """Cells whose drugs scanpy has drawn before; as after a file, the drugs are categories."""
    obs = pd.DataFrame({"drug": pd.Categorical(["drug_3", "drug_1", "drug_2"])}, index=list("abc"))
    return AnnData(np.zeros((3, 1)), obs, uns={"drug_colors": np.array(["red", "lime", "blue"], object)})


def contrast(colour, ground):
    """Of the WCAG: from 1 to 21."""

    def luminance(rgb):
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(rgb)]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    high, low = sorted([luminance(colour), luminance(ground)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [MODEL, BASELINE, CEILING, OBSERVED, *PALETTE])
def test_colours_are_seen_in_dark_styles_and_kept_in_light_ones(colour):
    assert shade(plt.subplots()[1], colour) == colour
    with plt.style.context("dark_background"):
        axis = plt.subplots()[1]
        assert contrast(shade(axis, colour), axis.get_facecolor()) > 5
        assert contrast(ink(axis), axis.get_facecolor()) > 15


def test_classes_have_the_colours_that_scanpy_stored(adata):
    axis = plt.subplots()[1]
    assert class_colours(axis, NAMES, adata, "drug") == ["red", "lime", "blue"]
    assert class_colours(axis, ["drug_3"], adata, "drug") == ["blue"]
    adata.obs["drug"] = adata.obs["drug"].astype(str)  # scanpy would make the same categories of it
    assert class_colours(axis, NAMES, adata, "drug") == ["red", "lime", "blue"]


@pytest.mark.parametrize(("names", "column"), [([*NAMES, "other"], "drug"), (NAMES, "line"), (NAMES, None)])
def test_what_scanpy_has_not_drawn_takes_the_palette(adata, names, column):
    assert class_colours(plt.subplots()[1], names, adata, column) == list(PALETTE[: len(names)])
    adata.uns["drug_colors"] = ["red"]  # of fewer categories: of another object
    assert class_colours(plt.subplots()[1], NAMES, adata, "drug") == list(PALETTE[:3])


@pytest.mark.parametrize("n", [7, 8, 20, 28, 102, 150])
def test_many_classes_take_palettes_of_scanpy(adata, n):
    colours = class_colours(plt.subplots()[1], [f"class {i}" for i in range(n)], adata, "drug")
    assert len(colours) == n
    assert len({to_hex(colour) for colour in colours}) == min(n, 102)


def test_stored_colours_are_those_of_points_and_lines(fitted):
    fitted.uns["cell_line_colors"] = ["#ff0000", "#0000ff"]
    axis = scgap.pl.conditions(fitted, color="cell_line", show=False)
    assert [to_hex(drawn.get_facecolor()[0]) for drawn in axis.collections] == ["#ff0000", "#0000ff"]
    doses = [{"perturbation": "drug_1", "dose_value": dose} for dose in (100.0, 300.0)]
    curve = scgap.tl.screen(fitted, doses, n_cells=20, progress=False)
    axis = scgap.pl.dose_response(fitted, curve, features="feature_0", show=False)
    assert [line.get_color() for line in axis.get_legend_handles_labels()[0][:2]] == ["#ff0000", "#0000ff"]
    fitted.uns["perturbation_colors"] = ["#111111", "#222222", "#333333", "#444444"]  # control comes first
    one = scgap.tl.screen(fitted, [{**query, "cell_line": "line_1"} for query in doses], n_cells=20, progress=False)
    axis = scgap.pl.dose_response(fitted, one, features="feature_0", show=False)
    assert axis.get_legend_handles_labels()[0][0].get_color() == "#222222"
