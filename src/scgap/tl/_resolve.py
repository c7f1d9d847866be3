"""Show what a query can mean."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from scgap._adata import Data, Modality, get_modality, get_obs
from scgap._conditions import Condition, condition_label, group_texts, parse_condition, read_conditions
from scgap._joint import one_object
from scgap._meanings import meanings, measured_cells, open_columns, trained_conditions
from scgap._messages import not_found
from scgap._model import TransportModel, get_model
from scgap._query import Query, read_query
from scgap._support import TIERS, nearest_conditions, support_tiers
from scgap._text import known_groups

N_NEAREST = 3  # measured neighbours that are named


def resolve(
    data: Data, query: Query, *, aliases: Mapping[str, str] | None = None, key: str = "scgap", mod: Modality = None
) -> pd.DataFrame:
    """Show which conditions a query can mean, and how far each is from what was trained on.

    Names may differ from those of the fit in case, spaces and punctuation; misspelt ones are refused, with a
    suggestion.

    Parameters
    ----------
    data
        The object with the fitted map.
    query
        A mapping from columns of the fit to values, of which any may be left out; a row of a table of conditions; or a
        text: a label, or parts between commas in any order, such as ``"drug_1 1 uM + drug_2 10 nM, line_1, 24 h"``.
        Quantities with a unit are converted to that of the fit (``dose_unit`` and ``time_unit`` of
        `scgap.tl.fit_transport`). A set of perturbations is taken whole: ``"drug_1"`` is drug_1 alone.
    aliases
        Other names of perturbations and groups: from alias to name.
    key
        Where the fitted map is in ``uns``.
    mod
        Modality of a MuData, or several, as in `scgap.tl.fit_transport`.

    Returns
    -------
    One row for each full condition: ``condition_label``; the columns of the fit; ``missing``, the columns that the
    query left open, joined by commas; ``support``, the tier of support (ordered categorical); ``n_cells``, measured
    cells, in all parts of the split; ``nearest``, labels of the nearest measured conditions, joined by semicolons.

    What is left open is filled with the measured conditions that agree with the rest; where there is none, with all
    doses, times and groups that were measured.

    Raises
    ------
    KeyError
        An unknown column, perturbation or group.
    TypeError
        ``data`` is no AnnData or MuData, or an argument is of a type that it cannot have.
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
    data, mod = one_object(data, mod)
    model = get_model(data, mod, key)
    asked = read_query(model, query, aliases)
    _check_groups(data, mod, model, asked)
    full = meanings(model, asked)
    conditions = [parse_condition(model.design, one) for one in full]
    measured = measured_cells(model)
    label_of = dict(zip(measured, model.conditions["condition_label"], strict=True))
    if any(condition.is_control for condition in conditions):
        measured = measured | _control_cells(data, mod, model)
    table = pd.DataFrame(full, columns=model.design.columns)
    table.insert(0, "condition_label", [condition_label(condition) for condition in conditions])
    support = support_tiers(list(trained_conditions(model)), model.encoding.perturbations, conditions)
    return table.assign(
        missing=", ".join(open_columns(model.design, asked)),
        support=pd.Categorical(support, TIERS, ordered=True),
        n_cells=[measured.get(condition, 0) for condition in conditions],
        nearest=["; ".join(label_of[near] for near in one) for one in _nearest(list(label_of), conditions)],
    )


def _nearest(measured: Sequence[Condition], conditions: Sequence[Condition]) -> Iterator[list[Condition]]:
    """The nearest measured conditions of each, looked for among the nearest sets of perturbations alone."""
    sets: dict[frozenset[str], list[int]] = {}
    for i, condition in enumerate(measured):
        sets.setdefault(frozenset(name for name, _ in condition.members), []).append(i)
    for condition in conditions:
        names = {name for name, _ in condition.members}
        by_distance: dict[int, list[int]] = {}
        for other, rows in sets.items():
            by_distance.setdefault(len(names ^ other), []).extend(rows)
        near: list[int] = []
        for distance in sorted(by_distance):
            if len(near) < N_NEAREST:
                near += by_distance[distance]
        yield nearest_conditions([measured[i] for i in sorted(near)], condition, N_NEAREST)


def _check_groups(data: Data, mod: str | None, model: TransportModel, asked: Mapping[str, object]) -> None:
    """Refuse groups that are neither fitted nor in the data."""
    for column in model.design.group_cols:
        known = known_groups(model, column)
        if column not in asked or asked[column] in known:
            continue
        if column in get_modality(data, mod).obs or column in data.obs:
            known = sorted({*known, *group_texts(get_obs(data, mod, [column]))[column].dropna()})
        if asked[column] not in known:
            raise KeyError(not_found(str(asked[column]), f"adata.obs[{column!r}]", known))


def _control_cells(data: Data, mod: str | None, model: TransportModel) -> Counter[Condition]:
    """Control cells of each group in the data, for the map's table holds perturbed conditions alone."""
    if not {*get_modality(data, mod).obs, *data.obs}.issuperset(model.design.columns):
        return Counter()
    conditions, of_cell, _ = read_conditions(
        model.design, get_obs(data, mod, model.design.columns), need_controls=False
    )
    return Counter(conditions[i] for i in of_cell if i >= 0 and conditions[i].is_control)
