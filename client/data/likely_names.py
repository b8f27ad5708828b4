"""Columns and files that are likely meant for one that is missing, so that a message can name them."""

import difflib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from client.data.look_alikes import Known
from client.data.problems import quote

_IN_BRACKETS = re.compile(r"\([^)]*\)|\[[^\]]*\]|\{[^}]*\}|<[^>]*>")
_WORD = re.compile(r"[^\W_]+")
_PACKED = ("gz", "zip", "bz2", "xz", "zst", "7z")
_SHEETS = ("xlsx", "xls", "xlsm", "xlsb", "ods", "numbers")
_OTHER = ("tsv", "tab", "dat", "pq", "parq", "feather", "arrow", "orc", "sas7bdat", "xpt", "sav", "dta", "rds")
_OWN = ("csv", "parquet")
_TABLE = re.compile(
    rf"(?P<name>.+?)\.(?:{'|'.join((*_OWN, *_SHEETS, *_OTHER))})(?:\.(?:{'|'.join((*_OWN, 'txt', *_PACKED))}))*",
    re.IGNORECASE | re.DOTALL,
)


def advise_column(name: str, header: Sequence[str], *, wanted: Sequence[str]) -> str:
    """What to do about a missing column.

    Args:
        name: of the column.
        header: the names that the file has.
        wanted: every column that must be there; none of these is meant for another.
    """
    others = [other for other in dict.fromkeys(header) if other and other not in wanted]
    same = [other for other in others if Known([name]).hint(other) or _folded(other) == _folded(name)]
    if same:
        return f"Rename column {quote(same[0])} to {name}"
    near = difflib.get_close_matches(_folded(name), [_folded(other) for other in others], n=1, cutoff=0.8)
    close = [other for other in others if _within(_words(name), _words(other))]
    close += [other for other in others if _folded(other) in near]
    add = "add it, with empty cells where nothing is known"
    return f"Rename column {quote(close[0])} to {name} if it holds the same, else {add}" if close else add.capitalize()


def _words(name: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", name).casefold())


def _folded(name: str) -> str:
    """A name without unit in brackets, capitals, spaces and marks."""
    return "".join(_words(_IN_BRACKETS.sub("", name)) or _words(name))


def _within(words: Sequence[str], others: Sequence[str]) -> bool:
    n = len(words)
    return bool(n) and any(list(others[start : start + n]) == list(words) for start in range(len(others) - n + 1))


def is_table(file: str) -> bool:
    """True if a file's name is that of a table, in a form that is read or in another."""
    return _TABLE.fullmatch(file) is not None


def misnamed_files(folder: Path, name: str) -> list[str]:
    """Files that hold table `name` under a name or in a form that is not read: PATIENTS.CSV, patients.csv.gz."""
    try:
        return sorted(path.name for path in folder.iterdir() if _means(path.name, name) and path.is_file())
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # told by whoever reads the folder
        return []


def _means(file: str, name: str) -> bool:
    found = _TABLE.fullmatch(file)
    return file.casefold() == name.casefold() or (found is not None and found["name"].casefold() == name.casefold())


def similar_files(folder: Path, name: str) -> list[str]:
    """Files whose name begins as that of a table, or nearly is it; a guess, best first."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    stems = {file: file.partition(".")[0].casefold() for file in names}
    near = difflib.get_close_matches(name.casefold(), stems.values(), n=3, cutoff=0.75)
    return [file for file in names if stems[file] in near or stems[file].startswith(name.casefold())]


def advise_file(file: str, name: str) -> str:
    """What to do about a file that is likely meant for table `name`."""
    ends = file.casefold().split(".")[1:]
    if ends and ends[-1] in _PACKED:
        return f"Unpack it to {name}.csv or {name}.parquet"
    if ends and ends[-1] in _OWN and not {*ends} & {*_SHEETS, *_OTHER}:
        return f"Rename it to {name}.{ends[-1]}"
    return f"Save it as {name}.csv: CSV UTF-8 with commas"
