import numpy as np
import pytest

from scgap._checks import (
    check_folder,
    check_layers,
    check_path,
    choice,
    chosen_names,
    number,
    positive,
    text,
    texts,
    whole_number,
    widths,
)


def test_one_name_or_several():
    assert texts("by", "split") == ["split"]
    assert texts("by", ("split", "support")) == ["split", "support"]
    with pytest.raises(TypeError, match=r"by is an int, 3. Pass a name, or a list of names"):
        texts("by", 3)
    with pytest.raises(TypeError, match=r"An entry of by is a NoneType, None. Pass a name"):
        texts("by", ["split", None])
    with pytest.raises(TypeError, match=r"key is a list, \['a'\]. Pass a name"):
        text("key", ["a"])
    with pytest.raises(TypeError, match=r"above is a str, '3'. Pass a number"):
        number("above", "3", "a number")


def test_true_is_no_number():
    with pytest.raises(ValueError, match=r"n_maps=True. Pass a whole number from 1 on"):
        whole_number("n_maps", True, 1)
    with pytest.raises(ValueError, match=r"An entry of hidden=True. Pass a whole number"):
        widths((64, True))
    with pytest.raises(ValueError, match=r"epsilon=True. Pass a positive number"):
        positive("epsilon", True)
    with pytest.raises(TypeError, match=r"above is a bool, True. Pass a number"):
        number("above", True, "a number")


def test_known_names():
    assert chosen_names(None, ["a", "b"], "metrics") == ["a", "b"]
    assert chosen_names("b", ["a", "b"], "metrics") == ["b"]
    with pytest.raises(KeyError, match=r"'c' is not in the metrics; found 'a', 'b'"):
        chosen_names(["a", "c"], ["a", "b"], "metrics")
    for value in ("c", 1, ["a"], np.arange(2)):
        with pytest.raises(ValueError, match=r'is not one of its values. Pass "a", "b" or None'):
            choice("heavy", value, ("a", "b", None))


def test_paths(tmp_path):
    assert check_folder(str(tmp_path / "a")) == tmp_path / "a"
    with pytest.raises(TypeError, match=r"checkpoint is a bool, True. Pass the path of a file"):
        check_path(True, "checkpoint")
    with pytest.raises(ValueError, match=r"null character"):
        check_path("a\0b")
    with pytest.raises(ValueError, match=r"is a folder. Pass the path of a file in it"):
        check_folder(tmp_path)


def test_layers_are_a_chain():
    layer = {"kernel": np.ones((3, 2), np.float32), "bias": np.zeros(2, np.float32)}
    after = {"kernel": np.ones((2, 5), np.float32), "bias": np.zeros(5, np.float32)}
    assert check_layers({"0": layer, "1": after}, 3) == 5
    for wrong in ({"0": layer, "1": layer}, {}, {"0": {**layer, "bias": np.full(2, np.nan, np.float32)}}):
        with pytest.raises(ValueError, match=r"a network|a layer|layer"):
            check_layers(wrong, 3)
