"""One form of text, so that what looks the same is the same: in ids, levels, items, column names and the schema."""

import re
import unicodedata

# Unicode's property Default_Ignorable_Code_Point, and what has no ink besides: what an editor does not draw (byte order
# marks, zero-width spaces and joiners, soft hyphens, marks of direction, variation selectors, fillers, empty notes).
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013441\U00013442\U00016fe4\U0001bca0-\U0001bca3\U0001d159"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000]")


def plain_text(text: str) -> str:
    """Text in Unicode's form NFC, without invisible characters and surrounding space, with plain spaces only.

    Letters that only look alike, such as Latin and Cyrillic A, stay different.
    """
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", _SPACE.sub(" ", _INVISIBLE.sub("", text))).strip()


def is_unseen(letter: str) -> bool:
    """True if plain text has another letter, or none, in place of one that nobody sees or that looks like a space."""
    return bool(_INVISIBLE.match(letter) or _SPACE.match(letter))
