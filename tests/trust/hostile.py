"""Files and stored content that nobody wrote by accident."""

import copy
import json
import struct

import numpy as np
import pandas as pd
from hypothesis import strategies as st

PLAIN = [
    None,
    True,
    0,
    -1,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../etc/passwd",
    "é\x00",
    [],
    [[]],
    {},
]
MARKED = [{"array": "/weights/scale"}, {"array": "nothing"}, {"strings": 3}, {"strings": [[1]]}, {"frame": [["a", 1]]}]
OTHERS = [{"frame": {}}, [1, 2], ["a", "b"], {"__class__": "os.system"}, "9" * 5_000, "[" * 3_000]
JSON_VALUES = st.sampled_from([*PLAIN, *MARKED, *OTHERS]).map(copy.deepcopy)  # for they are changed in turn


@st.composite
def changed_json(draw, value, *, most=3):
    """Parsed JSON with a few entries replaced, dropped or put elsewhere."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        place, parent = value, None
        while isinstance(place, dict | list) and place:
            parent, names = place, list(place) if isinstance(place, dict) else range(len(place))
            name = draw(st.sampled_from(list(names)))
            place = parent[name]
            if draw(st.integers(0, 3)) == 0:
                break
        if parent is None:
            return draw(JSON_VALUES)
        action = draw(st.sampled_from(["replace", "replace", "drop", "nest", "text"]))
        if action == "replace":
            parent[name] = draw(JSON_VALUES)
        elif action == "nest":
            parent[name] = [place]
        elif action == "text" and isinstance(place, str) and place[:1] in "{[" and 1 < len(place) < 2_000:
            parent[name] = json.dumps(draw(changed_json(json.loads(place), most=1)))  # settings are JSON in JSON
        else:
            del parent[name]
    return value


def parts(content):
    """The header of a safetensors file, and its tensors; without the digest, which would find any change first."""
    (n,) = struct.unpack("<Q", content[:8])
    header, tensors = json.loads(content[8 : 8 + n]), content[8 + n :]
    start, stop = header.pop("digest")["data_offsets"]
    assert stop == len(tensors)
    return header, tensors[:start]


def assembled(header, tensors, n=None):
    """A safetensors file, whose header may be any text and claim any length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if n is None else n) + text + tensors


@st.composite
def files(draw, path, key):
    """Random bytes, or the bytes of a valid file after some change; ``key`` names JSON in the file's metadata."""
    valid = path.read_bytes()
    header, tensors = parts(valid)
    kind = draw(
        st.sampled_from(["random", "bytes", "cut", "length", "header", "metadata", "twice", "numbers", "longer"])
    )
    if kind == "random":
        return draw(st.binary(max_size=200))
    if kind == "cut":
        return valid[: draw(st.integers(0, len(valid) - 1))]
    if kind == "longer":
        return valid + draw(st.binary(min_size=1, max_size=50))
    if kind == "length":
        n = draw(
            st.sampled_from([0, 1, 2**20, 10**8, 2**31, 2**32, 2**40, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
        )
        return assembled(header, tensors, n)
    if kind == "bytes":
        content = bytearray(valid)
        for _ in range(draw(st.integers(1, 5))):
            content[draw(st.integers(0, min(len(valid), 2_000) - 1) | st.integers(0, len(valid) - 1))] = draw(
                st.integers(0, 255)
            )
        return bytes(content)
    if kind == "numbers":
        values = np.frombuffer(tensors[: len(tensors) // 4 * 4], "<f4").copy()
        values[draw(st.integers(0, len(values) - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 3e38]))
        return assembled(header, values.tobytes() + tensors[len(values) * 4 :])
    if kind == "twice":
        text = json.dumps(header)
        name = draw(st.sampled_from(sorted(header)))
        return assembled((text[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}").encode(), tensors)
    if kind == "metadata" and key in header["__metadata__"]:
        content = draw(changed_json(json.loads(header["__metadata__"][key])))
        return assembled({**header, "__metadata__": {**header["__metadata__"], key: json.dumps(content)}}, tensors)
    return assembled(draw(changed_json(header)), tensors)


class Changed(dict):
    """Content of ``uns``, of which a report shows what was changed alone."""

    def __repr__(self):
        return f"<{self.where}>"


@st.composite
def changed_uns(draw, get):
    """Content of ``uns`` with one entry replaced, dropped, or of another shape; ``get`` gives what is valid."""
    stored = Changed(copy.deepcopy(get()))
    place, parent, name, where = stored, None, None, []
    while isinstance(place, dict) and place and (parent is None or draw(st.integers(0, 4))):
        parent, name = place, draw(st.sampled_from(sorted(place)))
        place = parent[name]
        where.append(name)
    if isinstance(place, str) and place[:1] == "{" and draw(st.booleans()):
        parent[name] = json.dumps(draw(changed_json(json.loads(place), most=1)))
    elif isinstance(place, pd.DataFrame) and draw(st.integers(0, 3)):
        column = draw(st.sampled_from(sorted(place)))
        wild = [None, np.nan, -1, 10**20, "x", "train", np.inf, True]
        parent[name] = draw(
            st.sampled_from([place.drop(columns=column), place.iloc[:0], place.iloc[[0, 0][: len(place)]]])
        )
        if draw(st.booleans()):
            parent[name] = place.assign(**{column: draw(st.sampled_from(wild))})
    elif isinstance(place, np.ndarray | np.floating) and draw(st.integers(0, 3)):
        value = np.array(place, object if np.asarray(place).dtype.kind == "O" else float)
        parent[name] = draw(
            st.sampled_from([value[None], value.ravel()[:-1], value.T, value.astype(str), -value * np.nan])
            if value.dtype != object
            else st.sampled_from([value[:-1], value[::-1], value[[0, 0][: len(value)]], value[None]])
        )
    elif draw(st.booleans()):
        del parent[name]
    else:
        parent[name] = draw(JSON_VALUES | st.sampled_from([np.zeros(2), np.array("x"), pd.DataFrame(), b"x"]))
    stored.where = f"{'/'.join(where)}: {parent.get(name, 'dropped')!r:.200}"
    return stored
