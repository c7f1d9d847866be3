"""Checks of what users give as arguments."""

from collections.abc import Collection, Mapping
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from scgap._messages import kind_of, not_found, shown


def is_number(value: Any, kind: type) -> bool:
    """Whether a value is a number of a kind, such as ``Real``; to Python, True is one."""
    return isinstance(value, kind) and not isinstance(value, bool | np.bool_)


def whole_number(name: str, value: Any, least: int) -> int:
    """A plain number, for NumPy's have no place in JSON."""
    if not is_number(value, Integral) or int(value) < least:
        raise ValueError(f"{name}={shown(value)}. Pass a whole number from {least} on.")
    if int(value) >= 2**62:
        raise ValueError(f"{name}={shown(value)}. Pass a whole number below 2**62.")
    return int(value)


def positive(name: str, value: Any, *, or_zero: bool = False) -> float:
    """A finite number above 0, or 0 if that leaves a term out."""
    if not is_number(value, Real) or not (0 < float(value) < np.inf or (or_zero and value == 0)):
        raise ValueError(f"{name}={shown(value)}. Pass a positive number{', or 0 to leave it out' if or_zero else ''}.")
    return float(value)


def number(name: str, value: Any, allowed: str) -> float:
    """A number, of which ``allowed`` says what it is; its range is for the caller to check."""
    if not is_number(value, Real):
        raise TypeError(f"{name} is {kind_of(value)}, {shown(value)}. Pass {allowed}.")
    return float(value)


def widths(hidden: Any) -> tuple[int, ...]:
    """Widths of hidden layers."""
    try:
        several = [] if isinstance(hidden, str) else list(hidden)
    except TypeError:
        several = []
    if not several:
        raise ValueError(f"hidden={shown(hidden)}. Pass the widths of at least one hidden layer, such as (128, 128).")
    return tuple(whole_number("An entry of hidden", width, 1) for width in several)


def text(name: str, value: Any) -> str:
    """One name."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {kind_of(value)}, {shown(value)}. Pass a name, which is a string.")
    return value


def texts(name: str, value: Any) -> list[str]:
    """One name, or several."""
    if isinstance(value, str):
        return [value]
    try:
        several = list(value)
    except TypeError:
        raise TypeError(f"{name} is {kind_of(value)}, {shown(value)}. Pass a name, or a list of names.") from None
    return [text(f"An entry of {name}", one) for one in several]


def choice(name: str, value: Any, allowed: Collection[str | None]) -> None:
    """Refuse what is none of a few words."""
    if not isinstance(value, str | None) or value not in allowed:
        *words, last = ("None" if word is None else f'"{word}"' for word in allowed)
        raise ValueError(f"{name}={shown(value)} is not one of its values. Pass {', '.join(words)} or {last}.")


def chosen_names(names: Any, known: Collection[str], what: str) -> list[str]:
    """The names asked for, each of which is known; all, if None is given."""
    chosen = list(known) if names is None else texts(what, names)
    for name in chosen:
        if name not in known:
            raise KeyError(not_found(name, f"the {what}", known))
    return chosen


def check_path(path: Any, name: str = "path") -> Path:
    """A path that can be opened, as far as its form tells."""
    if not isinstance(path, str | PathLike):
        raise TypeError(
            f"{name} is {kind_of(path)}, {shown(path)}. Pass the path of a file, a string or a pathlib.Path."
        )
    path = Path(path)
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} holds a null character, which no path can. Pass the path of a file.")
    return path


def check_folder(path: Any, name: str = "path") -> Path:
    """Refuse files in folders that do not exist, and folders."""
    path = check_path(path, name)
    if not path.parent.is_dir():
        raise ValueError(f"{str(path)!r} is in a folder, {str(path.parent)!r}, that does not exist. Make it first.")
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder. Pass the path of a file in it, such as map.safetensors.")
    return path


def need(holds: bool, what: str) -> None:
    """Refuse stored content; the caller makes a sentence of what is wrong with it."""
    if not holds:
        raise ValueError(what)


def check_layers(layers: Any, n_in: int) -> int:
    """Refuse what is no chain of dense layers, ``"0"``, ``"1"``, … -> kernel and bias; return its last width."""
    need(isinstance(layers, Mapping) and bool(layers), "a network has no layers")
    for i in range(len(layers)):
        kernel, bias = (np.asarray(layers[str(i)][kind]) for kind in ("kernel", "bias"))
        need(kernel.dtype.kind == bias.dtype.kind == "f", "a network has weights that are no numbers")
        need(kernel.ndim == 2 and kernel.shape == (n_in, len(bias)), f"layer {i} of a network has another shape")
        need(bool(np.isfinite(kernel).all() and np.isfinite(bias).all()), f"layer {i} of a network is not finite")
        n_in = len(bias)
    return n_in
