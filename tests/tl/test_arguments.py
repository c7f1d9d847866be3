import jax
import jax.numpy as jnp
import numpy as np
import pytest
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


def own_cost(power, weights=None):
    """A cost as one writes it in a notebook: a new class each time, which tells JAX nothing of what it holds."""

    class Own(costs.CostFn):
        def __init__(self):
            self.power, self.weights = power, weights

        def __call__(self, x, y):
            return jnp.sum(jnp.abs(x - y) ** self.power)

    return Own


@pytest.mark.parametrize("prepared", [lambda cost: cost, jax.tree_util.register_pytree_node_class])
def test_costs_of_ones_own_are_not_taken_for_each_other(prepared):
    first, anew = (prepared(own_cost(power)) for power in (1, 2))
    assert first.__name__ == anew.__name__
    (name, one), (other_name, other) = resolve_cost(first()), resolve_cost(anew())
    assert one is not other
    assert name != other_name
    assert resolve_cost(first()) == (name, one)
    assert "0x" not in name
    array = prepared(own_cost(1, {"of features": np.ones(3)}))
    changed = array()
    changed.weights = {"of features": np.zeros(3)}
    assert resolve_cost(array())[1] is not resolve_cost(changed)[1]
    assert resolve_cost(changed)[1] is changed
    assert resolve_cost(array()) == resolve_cost(array())
