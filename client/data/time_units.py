"""Units of time that a schema may name, for columns whose type is a duration."""

from shared_model.plain_text import plain_text

_SECOND = 1_000_000_000
_LENGTHS_NS = {
    ("ns", "nanosecond", "nanoseconds"): 1,
    ("us", "µs", "μs", "microsecond", "microseconds"): 1_000,
    ("ms", "msec", "millisecond", "milliseconds"): 1_000_000,
    ("s", "sec", "secs", "second", "seconds"): _SECOND,
    ("min", "mins", "minute", "minutes"): 60 * _SECOND,
    ("h", "hr", "hrs", "hour", "hours"): 3600 * _SECOND,
    ("d", "day", "days"): 86_400 * _SECOND,
    ("w", "wk", "week", "weeks"): 7 * 86_400 * _SECOND,
}
_BY_NAME = {name: length for names, length in _LENGTHS_NS.items() for name in names}


def unit_ns(unit: str) -> int:
    """Length of a unit of time in nanoseconds; 0 for any other unit, and for months and years, which differ."""
    return _BY_NAME.get(plain_text(unit).casefold(), 0)
