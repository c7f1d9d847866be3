import pytest

from scgap._text import _split


@pytest.mark.parametrize(
    ("text", "names", "parts"),
    [
        ("A, B; C", [], ["A", "B", "C"]),
        (" ,A,, ", [], ["A"]),
        ("1,2-X 5, line", ["1,2-X", "A"], ["1,2-X 5", "line"]),
        ("5; 1,2-x", ["1,2-X"], ["5", "1,2-x"]),
        ("11,2-X", ["1,2-X"], ["11", "2-X"]),  # another name
        ("a,b, a", ["a,b", "a"], ["a,b", "a"]),
        ("[1,2] (R)", ["[1,2] (R)"], ["[1,2] (R)"]),
        ("", [], []),
    ],
)
def test_names_are_not_cut(text, names, parts):
    assert _split(text, "[,;]", names) == parts
