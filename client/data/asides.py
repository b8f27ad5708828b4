"""Rows of a table that are no data: totals, counts of rows, comments, marks of the end."""

import re

from client.data.causes import CellCause

_REMEDY = "Remove the row"
_TOTALS = CellCause("totals-row", "a row of totals", _REMEDY)
_COUNT = CellCause("totals-row", "a count of rows", _REMEDY)
_COMMENT = CellCause("comment-row", "a comment", _REMEDY)
_END = CellCause("footer-row", "a footer", _REMEDY)

_SUM = (
    "(?:grand |sub-?|over-?)?totals?|totale|totaal|totaux|summen?|sum|(?:gesamt|zwischen)summe|gesamt|insgesamt|somme"
    "|suma|soma|mean|average|median|mittelwert|durchschnitt|moyenne|promedio"
)
_ROWS = "rows?|records?|patients?|cases|lines|zeilen|datens\u00e4tze|patienten|f\u00e4lle|lignes|filas"
_NUMBER = r"[0-9][0-9.,' ]*"
"""Whatever stands beside these, they are no patient."""
_SURELY = {
    rf"(?:{_SUM})\s*[:=]?": _TOTALS,
    rf"n\s*[=:]\s*{_NUMBER}": _COUNT,
    rf"\(?\s*{_NUMBER}\s*(?:{_ROWS})(?: (?:affected|selected|returned|exported|in set))?[.)]*": _COUNT,
}
"""An id may look like these: they are none where nothing stands beside them."""
_ALONE = {
    rf"(?:{_SUM}|sd|std|stdev|min|max|count|anzahl|number|overall|all|alle)\b.*": _TOTALS,
    rf"(?:{_ROWS})\s*[:=].*": _COUNT,
    r"(?:#|//|--\s|/\*|;|%|!|\*\s|rem\s).*": _COMMENT,
    r"(?:notes?|comments?|remarks?|hinweis|anmerkung|bemerkung|source|quelle)\s*:.*": _COMMENT,
    r"[-=*_~#]{3,}.*|(?:end|ende|fin|eof|dateiende)\b.*": _END,
    r"(?:report|export|exported|generated|created|printed|erstellt|exportiert|gedruckt|stand|page|seite)\b.*": _END,
}
_SURE_PATTERNS = tuple((re.compile(text, re.IGNORECASE | re.DOTALL), cause) for text, cause in _SURELY.items())
_PATTERNS = _SURE_PATTERNS + tuple((re.compile(text, re.IGNORECASE | re.DOTALL), c) for text, c in _ALONE.items())


def find_aside(text: str, *, alone: bool) -> CellCause | None:
    """What a row is whose first cell holds this, if it is no row of data.

    Args:
        text: the cell in its plain form.
        alone: whether all other cells of the row are empty.
    """
    patterns = _PATTERNS if alone else _SURE_PATTERNS
    return next((cause for pattern, cause in patterns if pattern.fullmatch(text)), None)
