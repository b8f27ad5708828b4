"""Known causes of a cell that is no number: those of exports and spreadsheets, each named."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
LEAVE_EMPTY = "Leave the cell empty if the value is not known"

_MISSING = frozenset(
    r"na n/a n.a. n.a nan null none nil nat <na> (null) \n unknown unk missing empty n/d nd n.d. nr".split()  # noqa: SIM905
) | {"not available", "not known", "not done", "-", "--", "---", "\u2013", "\u2014", ".", "..", "...", "?", "??"}
_EXCEL = r"#(?:N/A|NV|N/V|NULL!|REF!|BEZUG!|DIV/0!|VALUE!|WERT!|NAME\??|NUM!|ZAHL!|SPILL!|CALC!|\u00dcBERLAUF!|#+)"
_MONTH = r"(?:jan|feb|m[a\u00e4]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]*\.?"


@dataclass(frozen=True)
class CellCause:
    """A known reason why a cell is no number.

    Attributes:
        rule: its name.
        what: what the cell holds.
        remedy: what to do.
    """

    rule: str
    what: str
    remedy: str


MISSING_MARKER = CellCause("missing-marker", "a mark for a missing value", LEAVE_EMPTY)
EXCEL_ERROR = CellCause("excel-error", "an error of a spreadsheet", "Mend the formula, or leave the cell empty")
TEXT_MARK = CellCause("text-mark", "a spreadsheet's mark for text", "Export the values alone, without the mark")
FORMULA = CellCause("formula", "a formula", "Export values, not formulas")
OTHER = CellCause("not-a-number", "", f"Write decimals with a point, no unit. {LEAVE_EMPTY}")

_DAY_FIRST = r"[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}(?:[T ].*)?|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2,4}(?: .*)?"
_MONTH_NAMED = rf"[0-9]{{1,2}}\.?[- ]?{_MONTH}(?:[- ][0-9]{{2,4}})?|{_MONTH}[- ][0-9]{{1,4}}(?:, ?[0-9]{{4}})?"
_CLOCK = r"[+-]?(?:[0-9]+ days?,? )?[+-]?[0-9]{1,3}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?[ap]m)?|[0-9]+ days?"
_ISO_DURATION = r"P(?:[0-9]+D)?T?[0-9.HMS]+"
_THOUSANDS = (
    r"[+-]?[0-9]{1,3}(?:(?:,[0-9]{3})+(?:\.[0-9]*)?|(?:[ '\u2019_][0-9]{3})+(?:[.,][0-9]*)?|(?:\.[0-9]{3}){2,})"
)
_POINT = "Write decimals with a point"
_CAUSES: Mapping[str, CellCause] = {
    r"=\s*\"[^\"]*\"|['\u2018\u2019][^'\u2018\u2019]*": TEXT_MARK,  # ="007" and '007
    r"=.*": FORMULA,
    rf"(?:[<>\u2264\u2265~\u2248]=?|[<>] ?=)\s*{NUMBER}.*": CellCause(
        "limit-in-number", "a limit, not a value", f"Write a value that the study agreed on. {LEAVE_EMPTY}"
    ),
    rf"(?:{NUMBER}|[+-]?[0-9]+,[0-9]+)\s*%": CellCause("percent-sign", "a percent sign", "Write the number alone"),
    rf"{_DAY_FIRST}|{_MONTH_NAMED}": CellCause(
        "date-in-number", "a date", "Write a number; a spreadsheet may have made a date of it"
    ),
    rf"{_CLOCK}|{_ISO_DURATION}": CellCause(
        "clock-time", "a clock time or a duration", "Write the time as a number in the schema's unit"
    ),
    r"[+-]?[0-9]{1,3},[0-9]{3}": CellCause(
        "comma-in-number", "a comma, for decimals or for thousands", f"{_POINT} and nothing between thousands"
    ),
    r"[+-]?(?:[0-9]*|[0-9]{1,3}(?:[. '\u2019][0-9]{3})+),[0-9]+(?:[eE][+-]?[0-9]+)?": CellCause(
        "decimal-comma", "a decimal comma", _POINT
    ),
    _THOUSANDS: CellCause("thousands-separator", "a separator of thousands", "Write nothing between thousands"),
    rf"[\u2212\u2013\u2014\u2012\u2010\u2011]\s*{NUMBER}": CellCause(
        "not-a-minus", "a dash in place of the minus sign", "Write - (the hyphen of the keyboard)"
    ),
    rf"{NUMBER}\s*(?:[-\u2013/]|to|bis|\u00b1|;)\s*{NUMBER}": CellCause(
        "two-values", "two values", "Write one number a cell"
    ),
    rf"(?:{NUMBER}|[+-]?[0-9]+,[0-9]+)\s*[(\u00b0]?[^\W\d_].*": CellCause(
        "unit-in-cell", "a number and more", "Write the number alone, in the schema's unit"
    ),
}
_PATTERNS = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), cause) for pattern, cause in _CAUSES.items())
_SHEET_PATTERNS = tuple(pair for pair in _PATTERNS if pair[1] in (TEXT_MARK, FORMULA))
_SHEET_MARKS = ("=", "'", "\u2018", "\u2019")
_NUMBER = re.compile(NUMBER)
_EXCEL_ERROR = re.compile(_EXCEL)


def word_cause(text: str) -> CellCause | None:
    """Why a cell holds no value at all: a mark for a missing one, or a spreadsheet's error; None if neither."""
    if _EXCEL_ERROR.fullmatch(text):
        return EXCEL_ERROR
    return MISSING_MARKER if text.casefold() in _MISSING else None


def cell_cause(text: str) -> CellCause | None:
    """Why a cell is no value, whatever its column is for: also a spreadsheet's mark for text, or a formula."""
    found = word_cause(text)
    if found is None and text.startswith(_SHEET_MARKS):
        found = next((cause for pattern, cause in _SHEET_PATTERNS if pattern.fullmatch(text)), None)
    return found


def number_cause(text: str) -> CellCause:
    """Why a text is no number.

    Args:
        text: a cell in its plain form, not empty, and no number.
    """
    if _NUMBER.fullmatch(text):
        return OTHER  # written as a number, but larger than a number can be
    found = word_cause(text) or next((cause for pattern, cause in _PATTERNS if pattern.fullmatch(text)), None)
    if found is None and any(letter.isdecimal() and not letter.isascii() for letter in text):
        return CellCause("other-digits", "digits of another script", "Write the digits 0 to 9")
    return found or OTHER
