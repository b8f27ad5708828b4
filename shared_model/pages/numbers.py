"""Numbers as a page writes them; an unknown one is said in words."""

from collections.abc import Sequence

MISSING = "not available"
SUPPRESSED = "suppressed"

Ends = Sequence[float | None]


def percent(value: float | None, *, digits: int = 1) -> str:
    """A share in percent.

    >>> percent(0.5061), percent(None)
    ('50.6%', 'not available')
    """
    return MISSING if value is None else f"{_without_minus_zero(100 * value, digits)}%"


def number(value: float | None, *, digits: int = 2) -> str:
    """A number with a fixed count of decimals.

    >>> number(0.6872), number(-0.001)
    ('0.69', '0.00')
    """
    return MISSING if value is None else _without_minus_zero(value, digits)


def percent_interval(ends: Ends | None, *, digits: int = 1) -> str:
    """An interval in percent.

    >>> percent_interval([0.4711, 0.541])
    '47.1% to 54.1%'
    """
    return MISSING if not _is_known(ends) else " to ".join(percent(end, digits=digits) for end in ends or ())


def interval(ends: Ends | None, *, digits: int = 2) -> str:
    """An interval of plain numbers.

    >>> interval([0.5468, 0.8]), interval(None)
    ('0.55 to 0.80', 'not available')
    """
    return MISSING if not _is_known(ends) else " to ".join(number(end, digits=digits) for end in ends or ())


def significant(value: float | None) -> str:
    """A number as the data tables and their CSV carry it: four significant digits.

    >>> significant(0.68721), significant(241.0), significant(1e-5)
    ('0.6872', '241', '1e-05')
    """
    return MISSING if value is None else f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def _is_known(ends: Ends | None) -> bool:
    return ends is not None and len(ends) == 2 and None not in ends


def _without_minus_zero(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text
