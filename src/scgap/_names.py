"""Names that users write: matched but for case, spaces and punctuation, never by likeness."""

import re
import unicodedata
from collections.abc import Collection, Mapping


def matching_names(name: str, known: Collection[str], aliases: Mapping[str, str]) -> list[str]:
    """All known names that ``name`` can stand for: none, one, or several that differ in spelling alone."""
    if name in known:
        return [name]
    spelled = spelling(name)
    meant = {spelling(target) for alias, target in aliases.items() if spelling(alias) == spelled} or {spelled}
    return [other for other in dict.fromkeys(known) if spelling(other) in meant - {""}]


def spelling(name: str) -> str:
    """What is left of a name without case, spaces and punctuation.

    Signs stay, for CD4+ is not CD4-, nor (+)-JQ1 its mirror image; and so does what parts two numbers.
    """
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    text = re.sub(r"[-\u2010-\u2013\u2212](?!\s*\w)", "~", text)  # a minus: a hyphen has something behind it
    text = re.sub(r"(?<=\d)[\W_]+(?=\d)", lambda between: "+" if "+" in between[0] else "|", text)
    return "".join(letter for letter in text if letter.isalnum() or letter in "+~|")
