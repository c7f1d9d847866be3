"""Names that users write: matched but for case, spaces and punctuation, never by likeness."""

from collections.abc import Collection, Mapping

from scgap._messages import listed, nearest


def match_name(name: str, known: Collection[str], aliases: Mapping[str, str], where: str) -> str:
    """The known name that ``name`` stands for: itself, an alias of it, or another spelling of it.

    Raises
    ------
    KeyError
        It is none of them; the nearest name is suggested and not taken.
    ValueError
        It is a spelling of several of them.
    """
    matches = matching_names(name, known, aliases)
    if len(matches) > 1:
        raise ValueError(f"{name!r} may be any of {listed(matches)} in {where}. Write the one that is meant in full.")
    if not matches:
        close = nearest(name, known)
        hint = f"Did you mean {close!r}? Names are not guessed." if close else "Pass one of these, or give an alias."
        raise KeyError(f"{name!r} is not in {where}; found {listed(known)}. {hint}")
    return matches[0]


def matching_names(name: str, known: Collection[str], aliases: Mapping[str, str]) -> list[str]:
    """All known names that ``name`` can stand for: none, one, or several that differ in punctuation alone."""
    if name in known:
        return [name]
    spelled = _spelling(name)
    if not spelled:
        return []
    for alias, target in aliases.items():
        if _spelling(alias) == spelled:
            return [match_name(target, known, {}, f"the names that aliases stand for, here {alias!r}")]
    return [other for other in known if _spelling(other) == spelled]


def _spelling(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
