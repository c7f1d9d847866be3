"""Show what a query can mean."""

from collections.abc import Mapping

import pandas as pd

from scgap._adata import Data, get_modality, get_obs
from scgap._conditions import condition_label, parse_condition
from scgap._messages import not_found
from scgap._model import TransportModel, get_model
from scgap._query import Query, count_cells, meanings, measured_conditions, open_columns, read_query, trained_conditions
from scgap._support import TIERS, nearest_conditions, support_tiers

N_NEAREST = 3  # measured neighbours that are named


def resolve(
    data: Data, query: Query, *, aliases: Mapping[str, str] | None = None, key: str = "scgap", mod: str | None = None
) -> pd.DataFrame:
    """Show which conditions a query can mean, and how far each is from what was trained on.

    Names may differ from those of the fit in case, spaces and punctuation; misspelt ones are refused, with a
    suggestion.

    Parameters
    ----------
    data
        The object with the fitted map.
    query
        A mapping from columns of the fit to values, of which any may be left out; a row of a table; or a text: a label,
        or parts between commas in any order, such as ``"drug_1 1 uM + drug_2 10 nM, line_1, 24 h"``. Quantities with a
        unit are converted to that of the fit (`dose_unit` and `time_unit` of `scgap.tl.fit_transport`).
    aliases
        Other names of perturbations and groups: from alias to name.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData.

    Returns
    -------
    One row for each full condition: ``condition_label``; the columns of the fit; ``missing``, the columns that the
    query left open, joined by commas; ``support``, the tier of support (ordered categorical); ``n_cells``, measured
    cells; ``nearest``, labels of the nearest measured conditions, joined by semicolons.

    What is left open is filled with the measured conditions that agree with the rest; where there is none, with all
    doses, times and groups that were measured.

    Raises
    ------
    KeyError
        An unknown column, perturbation or group.
    ValueError
        A contradiction, a unit that does not fit, or a name that may be several.

    Examples
    --------
    >>> import scgap
    >>> adata = scgap.datasets.simulate_screen(600, n_drugs=2, doses=[10.0, 100.0], n_groups=1)
    >>> scgap.tl.fit_transport(adata, dose_col="dose_value", n_iters=10, progress=False)
    >>> scgap.tl.resolve(adata, "Drug 1")[["condition_label", "missing", "support"]]
      condition_label     missing support
    0       drug_1 10  dose_value    seen
    1      drug_1 100  dose_value    seen
    """
    model = get_model(data, mod, key)
    asked = read_query(model, query, aliases)
    _check_groups(data, mod, model, asked)
    full = meanings(model, asked)
    conditions = [parse_condition(model.design, one) for one in full]
    measured = dict(zip(measured_conditions(model), model.conditions["condition_label"], strict=True))
    table = pd.DataFrame(full, columns=model.design.columns)
    table.insert(0, "condition_label", [condition_label(condition) for condition in conditions])
    support = support_tiers(trained_conditions(model), model.encoding, conditions)
    return table.assign(
        missing=", ".join(open_columns(model.design, asked)),
        support=pd.Categorical(support, TIERS, ordered=True),
        n_cells=[count_cells(model, one) for one in full],
        nearest=[
            "; ".join(measured[near] for near in nearest_conditions(list(measured), condition, N_NEAREST))
            for condition in conditions
        ],
    )


def _check_groups(data: Data, mod: str | None, model: TransportModel, asked: Mapping[str, object]) -> None:
    """Refuse groups that are neither fitted nor in the data."""
    for column in model.design.group_cols:
        known = set(model.conditions[column].astype(str)) | set(model.encoding.groups[column])
        if column in asked and asked[column] not in known:
            has_column = column in get_modality(data, mod).obs
            found = known | (set(get_obs(data, mod, [column])[column].astype(str)) if has_column else set())
            if asked[column] not in found:
                raise KeyError(not_found(str(asked[column]), f"adata.obs[{column!r}]", sorted(found)))
