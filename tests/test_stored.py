import jax
import numpy as np
import pytest

from scgap._arrays import ConditionArrays
from scgap._map import ConditionalMap
from scgap._stored import network_shapes


@pytest.mark.parametrize("pooling", ["sum", "mean", "attention"])
@pytest.mark.parametrize("hidden", [(5,), (7, 3, 2)])
def test_shapes_in_files_are_those_of_the_network(pooling, hidden):
    network = ConditionalMap(hidden, n_embedding=6, pooling=pooling)
    members = np.zeros(4, np.float32)
    condition = ConditionArrays(np.zeros(4, np.int32), members, members, np.zeros(3, np.float32))
    weights = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 9)), np.zeros((4, 8)), condition)["params"]
    expected = network_shapes(hidden, pooling, n_embedding=6, n_vector=8, n_context=3, n_points=9)
    assert jax.tree.map(lambda weight: weight.shape, weights) == expected
