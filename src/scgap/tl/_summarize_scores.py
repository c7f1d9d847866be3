"""Means and scores over conditions, with intervals."""

from collections.abc import Sequence

import pandas as pd

from scgap._summary import summarize


def summarize_scores(
    scores: pd.DataFrame, *, by: str | Sequence[str] = ("split", "support"), n_bootstrap: int = 1_000, seed: int = 0
) -> pd.DataFrame:
    r"""Average scores over conditions, with 95 % intervals by bootstrap over conditions.

    .. math::
        \text{score} = \frac{B - V}{B - C}

    with the mean losses of the best simple baseline, of the method, and of the ceiling over the same conditions: a
    ratio of means, not a mean of ratios, which one condition without effect could make arbitrarily large.

    Parameters
    ----------
    scores
        What `scgap.tl.evaluate` returns, or several such tables in one. Rows that are there twice count once.
    by
        Columns whose values are summarised apart. Seen and unseen conditions are never pooled.
    n_bootstrap
        How often conditions are drawn anew, jointly for all methods.
    seed
        Decides which are drawn. Each metric has draws of its own, so leaving one out changes no other number.

    Returns
    -------
    One row for each group, metric and method: the columns of ``by``; ``method``; ``metric``; ``n_conditions`` with a
    value, over which is averaged; ``n_missing``, rows without one; ``mean``, ``low``, ``high`` of the values;
    ``baseline``, the simple baseline with the lowest mean loss over these conditions, of those that have all of them;
    ``score``, ``score_low``, ``score_high``: 0 is that baseline, 1 a replicate.

    Raises
    ------
    KeyError
        A column is missing.
    TypeError
        ``scores`` is no table.
    ValueError
        There are no rows, seen and unseen conditions would be pooled, or one condition has several values of a method
        and metric.

    Notes
    -----
    The loss is the value itself of metrics of which lower is better, one less the value of shares of variance, and the
    absolute logarithm of ratios.

    A score is missing where the baseline is on average as good as the ceiling, or where the ceiling lacks one of the
    conditions. Its limits are infinite where draws of such conditions are too many to tell. One condition has no
    interval. The baseline is chosen once, not in every draw. Intervals say how far another choice of conditions would
    have moved the result; they know nothing of another fit.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(1_500, n_drugs=4, doses=[100.0], n_groups=1)
    >>> scgap.pp.split(adata, dose_col="dose_value")
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", split_col="split", n_iters=10, progress=False)
    >>> scores = scgap.tl.evaluate(adata, metrics="energy_distance", baselines=["identity", "mean_shift"])
    >>> table = scgap.tl.summarize_scores(scores, by="split")
    >>> table[["method", "n_conditions"]]
           method  n_conditions
    0       scgap             4
    1    identity             4
    2  mean_shift             4
    3     ceiling             4
    """
    return summarize(scores, by, n_bootstrap, seed)
