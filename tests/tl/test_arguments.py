from ott.geometry import costs

from scgap._losses import COSTS
from scgap.tl._arguments import resolve_cost


def test_equal_costs_are_one_and_carry_their_parameters_in_their_names():
    name, cost = resolve_cost(costs.PNormP(1.5))
    assert resolve_cost(costs.PNormP(1.5)) == (name, cost)
    assert "PNormP" in name
    assert "1.5" in name
    assert "0x" not in name
    other_name, other = resolve_cost(costs.PNormP(1.25))
    assert other_name != name
    assert other is not cost
    assert resolve_cost("euclidean") == ("euclidean", COSTS["euclidean"])
