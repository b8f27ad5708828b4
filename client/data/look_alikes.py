"""Texts that look the same and differ: told apart in messages, never merged."""

import re
import unicodedata
from collections.abc import Iterable

from shared_model.plain_text import is_unseen

_CYRILLIC = {  # name of the letter, capital and small: a Latin letter of the same look
    "A": "Aa", "VE": "B", "IE": "Ee", "DZE": "Ss", "BYELORUSSIAN-UKRAINIAN I": "Ii", "JE": "Jj", "KA": "K", "EM": "M",
    "EN": "H", "O": "Oo", "ER": "Pp", "ES": "Cc", "TE": "T", "U": "Yy", "HA": "Xx", "SHHA": " h", "KOMI DE": " d",
}  # fmt: skip
_GREEK = {
    "ALPHA": "A", "BETA": "B", "EPSILON": "E", "ZETA": "Z", "ETA": "H", "IOTA": "I", "KAPPA": "K", "MU": "M",
    "NU": "Nv", "OMICRON": "Oo", "RHO": "P", "TAU": "T", "UPSILON": "Y", "CHI": "X",
}  # fmt: skip
_DASHES = "\u058a\u05be\u02d7\u1806\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\u2796\u2e3a\u2e3b\u30a0"
_MARKS = dict.fromkeys(_DASHES, "-") | dict(zip("\u2018\u2019\u201c\u201d\u2044", "''\"\"/", strict=True))


def _letters(script: str, latin_by_name: dict[str, str]) -> dict[str, str]:
    return {
        unicodedata.lookup(f"{script} {case} LETTER {name}"): latin
        for name, letters in latin_by_name.items()
        for case, latin in zip(("CAPITAL", "SMALL"), letters, strict=False)
        if latin != " "
    }


_LATIN_OF = str.maketrans(_letters("CYRILLIC", _CYRILLIC) | _letters("GREEK", _GREEK) | _MARKS)
_DOUBTFUL = re.compile(f"[{''.join(map(chr, _LATIN_OF))}]")
_PLAIN = re.compile("[0-9A-Za-z]")


def escape_doubtful(text: str, *, alone: bool = False) -> str:
    """Text with the code points of what nobody sees, of combining marks, and of letters that look like those beside.

    Args:
        text: what a message quotes.
        alone: escape look-alikes also where no plain letter or digit stands beside them.
    """
    mixed = alone or bool(_PLAIN.search(text))
    return "".join(ascii(letter)[1:-1] if _is_doubtful(letter, mixed=mixed) else letter for letter in text)


def _is_doubtful(letter: str, *, mixed: bool) -> bool:
    return bool(unicodedata.combining(letter) or is_unseen(letter) or (mixed and _DOUBTFUL.match(letter)))


def one_form(text: str) -> str:
    """Text with one letter for all that are drawn alike: full-width and other digits, dashes, Cyrillic and Latin A.

    Capitals, spaces and zeros in front still count. ASCII is its own form.
    """
    if text.isascii():
        return text
    wide = unicodedata.normalize("NFKC", text).translate(_LATIN_OF)
    digits = (str(unicodedata.decimal(letter, letter)) for letter in wide)  # of any script
    return unicodedata.normalize("NFKC", "".join(digits))


class Known:
    """Texts that a cell is compared with; says why one that looks the same is none of them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(texts)
        self._similar: dict[str, str] | None = None

    def hint(self, text: str) -> str:
        """Which known text looks like this one, and where they differ; empty if none does."""
        if self._similar is None:  # only once something is wrong
            self._similar = {_outline(known): known for known in reversed(self._texts)}
        known = self._similar.get(_outline(text))
        if known is None or known == text:
            return ""
        shown = f"which looks like the known {escape_doubtful(repr(known), alone=True)}"
        if text.isascii() and known.isascii():
            return f"{shown}: {'zeros in front' if text.isdigit() else 'capitals and spaces'} count"
        odd = sorted(
            {letter for letter in text + known if not letter.isascii() and (letter in text) != (letter in known)}
        )
        names = ", ".join(f"U+{ord(letter):04X} {unicodedata.name(letter, '')}".rstrip() for letter in odd)
        return f"{shown}, but one of them holds {names}" if names else shown


def _outline(text: str) -> str:
    """What is left of a text where only its look counts."""
    outline = "".join(one_form(text).casefold().split())
    return outline.lstrip("0") or "0" if outline.isdigit() else outline
