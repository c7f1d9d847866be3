"""Words shared by error messages."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

MAX_LISTED = 8
MAX_SHOWN = 60  # characters of a value


def listed(names: Iterable[object]) -> str:
    """``'a', 'b', …``: quoted names, cut after MAX_LISTED."""
    names = list(names)
    shown = ", ".join(repr(str(name)) for name in names[:MAX_LISTED])
    return shown + (f", … ({len(names)} in all)" if len(names) > MAX_LISTED else "") if names else "nothing"


def shown(value: object) -> str:
    """A value on one line, cut after MAX_SHOWN."""
    return cut(repr(value))


def cut(words: str) -> str:
    """A text on one line, cut after MAX_SHOWN."""
    line = " ".join(words.split())
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}…"


def reason(error: Exception) -> str:
    """What an error says, with its kind where it is not written for people."""
    return cut(str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}")


def nearest(what: str, found: Collection[object]) -> str | None:
    """The name that ``what`` may be a misspelling of."""
    close = get_close_matches(what.lower(), (str(name).lower() for name in found), n=1, cutoff=0.6)
    return next((str(name) for name in found if close and str(name).lower() == close[0]), None)


def not_found(what: str, where: str, found: Collection[object]) -> str:
    """What is missing, where it was looked for, what is there, and the nearest of it."""
    close = nearest(what, found)
    hint = f" Did you mean {close!r}?" if close else " Pass one of these." if found else ""
    return f"{what!r} is not in {where}; found {listed(found)}.{hint}"


def kind_of(value: object) -> str:
    """``an ndarray``: the type of a value, with its article."""
    name = type(value).__name__
    return f"{'an' if name.lower().startswith((*'aeiou', 'nd')) else 'a'} {name}"
