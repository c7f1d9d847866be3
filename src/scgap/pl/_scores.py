"""Methods against metrics, on the scale from the best simple baseline to a replicate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from matplotlib.typing import ColorType

from scgap._adata import Data, Modality
from scgap._checks import chosen_names
from scgap._messages import listed
from scgap._model import get_model, get_uns
from scgap._summary import CEILING, SIMPLE, summarize
from scgap._support import TIERS
from scgap.pl._style import BASELINE, MARKERS, PALETTE, finish, get_axes, halo, ink, shade, text_colour

BY = ("split", "support")  # a panel for each
FURTHEST = (-3.0, 2.0)  # scores that the axis reaches at most; beyond, they are written
PALE = 0.3  # opacity of intervals without an end
# What a table of many metrics shows of them: distributions, then moments from the first to joint ones, then effects.
MAIN = (
    "energy_distance",
    "mean_error",
    "std_error",
    "skewness_error",
    "correlation_error",
    "pearson_delta",
    "centroid_accuracy",
)
MOST_ROWS = 10  # metrics that are all shown
ROW = 0.07  # inches of a method, in which its point keeps clear of the next
LINE = 0.19  # inches of a line of the legend
LOWEST, HIGHEST = 2.6, 9.0  # inches of a figure: a single metric is no strip, and 22 of them fit on a page
# In typographic points: markers where there is room and where there is not, and numbers beyond the axis.
MARKER, SMALL, NUMBER = 4.5, 3.0, 6.0
HIDDEN = 1e6  # far outside of every axis: where the lines of infinite intervals end


def scores(
    data: Data | pd.DataFrame,
    *,
    key: str = "scgap",
    methods: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    mod: Modality = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | np.ndarray | Axes | None:
    """Plot scores of methods, a row a metric and a panel a tier of support, with 95 % intervals over conditions.

    At 0 is the best simple baseline of each metric, at 1 a replicate of the measurement.

    Parameters
    ----------
    data
        AnnData, or MuData together with ``mod``, after `scgap.tl.evaluate`; or a table that it returned, or several
        such tables in one.
    key
        Where the fitted map is in ``uns``.
    methods
        Methods to show, in this order; default all that have values, but the ceiling, the simple baselines last.
    metrics
        Metrics to show, from top to bottom, or ``"all"``. Default: those that have values; of more than ten the seven
        that say most of them, from distributions and moments to the size and direction of effects.
    mod
        Modality of a MuData, or several, as in `scgap.tl.fit_transport`.
    ax
        As many axes as there are tiers of support and splits; default new ones.
    show
        Whether to show the figure; by default shown when no axes were given.
    return_fig
        Whether to return the figure.

    Returns
    -------
    The figure with ``return_fig=True``, the axes with ``show=False``, else ``None``.

    Raises
    ------
    KeyError
        No map or no scores under ``key``, or an unknown method or metric.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
    ValueError
        ``methods`` or ``metrics`` are empty.

    Notes
    -----
    Scores and intervals are those of `scgap.tl.summarize_scores`, whichever methods are shown. Scores beyond the axis
    are not clipped: an arrow stands for them and, where there is room, the number. Intervals without an end are pale:
    in too many of the draws of conditions the best simple baseline is as good as a replicate. "no score" is written
    where it is so in the average of all conditions, or a replicate has no value; "no values" where no condition has
    one.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(750, n_drugs=2, doses=[100.0], n_groups=1)
    >>> scgap.pp.split(adata, dose_col="dose_value")
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", split_col="split", n_iters=10, progress=False)
    >>> _ = scgap.tl.evaluate(adata, metrics=["energy_distance", "std_error"])
    >>> axes = scgap.pl.scores(adata, show=False)
    """
    table = data if isinstance(data, pd.DataFrame) else _stored(data, mod, key)
    summary = summarize(table.assign(**{column: "" for column in BY if column not in table}), BY, 1_000, 0)
    found, known = (list(summary[column].unique()) for column in ("method", "metric"))
    default = [name for name in _with_values(summary, "method", found) if name != CEILING]
    methods = _chosen(methods, sorted(default, key=SIMPLE.__contains__), found, "methods")
    is_all = isinstance(metrics, str) and metrics == "all"  # an array would be compared item by item
    shown_metrics = known if is_all else _main(_with_values(summary, "metric", known))
    metrics = _chosen(None if is_all else metrics, shown_metrics, known, "metrics")
    shown = summary[summary["method"].isin(methods) & summary["metric"].isin(metrics)]
    panels, limits = _panels(shown), _limits(shown)
    # Names and legend take as much room beside one panel as beside many.
    width, row = 2.5 + 3.1 / len(panels), min(max(0.2, ROW * len(methods)), (HIGHEST - 1.0) / len(metrics))
    height = max(LOWEST, 1.0 + row * len(metrics), 0.4 + LINE * (len(methods) + 2))
    axes = get_axes(ax, len(panels), width=width, height=height)
    for axis, (title, panel) in zip(axes, panels, strict=True):
        _draw(axis, panel, methods, metrics, limits)
        axis.set_title(title, fontsize="medium")
        axis.set_yticks(range(len(metrics)), [])
    axes[0].set_yticks(range(len(metrics)), [metric.replace("_", " ") for metric in metrics])
    axes[-1].legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(axes, given=ax is not None, show=show, return_fig=return_fig)


def _stored(data: Data, mod: Modality, key: str) -> pd.DataFrame:
    get_model(data, mod, key)  # refuses what is not a map
    stored = get_uns(data, mod)[key]
    if not isinstance(stored.get("scores"), pd.DataFrame):
        raise KeyError(f"adata.uns[{key!r}] holds no scores of its map. Evaluate first: scgap.tl.evaluate(adata).")
    return stored["scores"]


def _with_values(summary: pd.DataFrame, column: str, found: list[str]) -> list[str]:
    """Those of the methods or metrics that any condition has a value of; all, where none has."""
    valued = set(summary.loc[summary["n_conditions"] > 0, column])
    return [name for name in found if name in valued] or found


def _main(metrics: list[str]) -> list[str]:
    """All of a few metrics; of many, the main ones."""
    return metrics if len(metrics) <= MOST_ROWS else [name for name in MAIN if name in metrics] or metrics


def _chosen(names: str | Sequence[str] | None, default: list[str], known: list[str], what: str) -> list[str]:
    chosen = default if names is None else chosen_names(names, known, f"{what} of the scores")
    if not chosen:
        raise ValueError(f"There are no {what} to show. Pass some of {listed(known)}.")
    return chosen


def _panels(shown: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Titles and rows, from the easiest tier to the hardest; splits are named where there are several."""
    several = shown["split"].nunique() > 1
    panels = []
    # Predictions of another tool have no tier where nothing says what it was trained on.
    for (split, tier), part in shown.groupby(list(BY), sort=False, observed=True, dropna=False):
        n = part["n_conditions"].max()
        title = ", ".join(name for name in (tier, split if several else "") if isinstance(name, str) and name)
        panels.append((f"{title}\n{n} condition{'s' if n != 1 else ''}".strip(), part))
    order = {tier: i for i, tier in enumerate(TIERS)}
    return sorted(panels, key=lambda panel: order.get(str(panel[1]["support"].iloc[0]), len(order)))


def _limits(shown: pd.DataFrame) -> tuple[float, float]:
    """What all panels show of the x axis: every score and interval, unless it is further off than FURTHEST."""
    drawn = shown[["score", "score_low", "score_high"]].to_numpy()
    ends = np.append(drawn[np.isfinite(drawn)], [0.0, 1.0])
    low, high = max(ends.min(), FURTHEST[0]), min(ends.max(), FURTHEST[1])
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _draw(axis: Axes, panel: pd.DataFrame, methods: list[str], metrics: list[str], limits: tuple[float, float]) -> None:
    dark = ink(axis)
    for row in range(1, len(metrics), 2):  # bands, which lead the eye to the names
        axis.axhspan(row - 0.5, row + 0.5, color=dark, alpha=0.06, lw=0, zorder=0)
    axis.axvline(0, color=dark, lw=1, zorder=1, label="best simple baseline")
    axis.axvline(1, color=dark, lw=1, ls="--", zorder=1, label="replicate")
    share = 0.84 / len(methods)  # of a row, for a method
    places = share * (np.arange(len(methods)) + 0.5 - len(methods) / 2)
    step = share * axis.bbox.height / axis.figure.dpi * 72 / len(metrics)  # in points
    roomy, n_columns = step > SMALL, int(np.ceil(NUMBER / step))
    for i, (method, place) in enumerate(zip(methods, places, strict=True)):
        rows = panel[panel["method"] == method].set_index("metric").reindex(metrics)
        rows["y"] = np.arange(len(metrics)) + place
        colour, marker = shade(axis, PALETTE[i % len(PALETTE)]), MARKERS[i % len(MARKERS)]
        lines = rows.dropna(subset=["score_low", "score_high"])
        is_open = np.isinf(lines[["score_low", "score_high"]]).any(axis=1)
        low, high = (lines[name].clip(-HIDDEN, HIDDEN) for name in ("score_low", "score_high"))
        pale_or_not = [to_rgba(colour, PALE if pale else 1.0) for pale in is_open]
        axis.hlines(lines["y"], low, high, colors=pale_or_not, lw=1.2, zorder=2)
        axis.plot(
            rows["score"], rows["y"], marker, color=colour, ms=MARKER if roomy else SMALL, mew=0, zorder=3, label=method
        )
        inset = 12 + 24 * (i % n_columns if roomy else 0)  # for numbers may be closer than they are high
        _point_beyond(axis, rows, limits, colour, inset=inset, write=roomy)
    beside = axis.get_yaxis_transform()
    for row, metric in enumerate(metrics):
        rows = panel[panel["metric"] == metric]
        if rows["score"].isna().all():
            axis.text(
                0.03,
                row,
                "no score" if rows["n_conditions"].any() else "no values",
                transform=beside,
                va="center",
                fontsize="x-small",
                color=text_colour(axis, BASELINE),
            )
    axis.set(xlim=limits, ylim=(len(metrics) - 0.5, -0.5), xlabel="score")
    axis.xaxis.set_major_locator(MultipleLocator(1))


def _point_beyond(
    axis: Axes, rows: pd.DataFrame, limits: tuple[float, float], colour: ColorType, *, inset: int, write: bool
) -> None:
    """Point to the scores that are beyond the axis with an arrow at its end, and write them beside it."""
    for score, y in zip(rows["score"], rows["y"], strict=True):
        if not limits[0] <= score <= limits[1] and not np.isnan(score):
            low = score < limits[0]
            axis.annotate(
                f"{score:.3g}" if write else "",
                (limits[0] if low else limits[1], y),
                xytext=(inset if low else -inset, 0),
                textcoords="offset points",
                ha="left" if low else "right",
                va="center_baseline",
                fontsize=NUMBER,
                color=ink(axis),
                path_effects=halo(axis),
                arrowprops={"arrowstyle": "->", "color": colour, "shrinkA": 0, "shrinkB": 0},
            )
