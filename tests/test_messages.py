import numpy as np
import pytest

from scgap._messages import kind_of, not_found


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (["A", "B"], "found 'A', 'B'. Pass one of these."),
        (["drugs"], "found 'drugs'. Did you mean 'drugs'?"),
        ([], "found nothing."),  # and nothing to choose from
    ],
)
def test_what_is_missing_comes_with_what_is_there(found, words):
    assert not_found("drug", "adata.obs", found) == f"'drug' is not in adata.obs; {words}"


@pytest.mark.parametrize(("value", "words"), [(np.ones(1), "an ndarray"), (1, "an int"), ({}, "a dict")])
def test_types_have_their_article(value, words):
    assert kind_of(value) == words
