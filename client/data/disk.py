"""Files that a table names, found whichever form of Unicode their disk and the table have."""

from functools import cache
from pathlib import Path, PurePosixPath

from shared_model.plain_text import plain_text


class Disk:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._list = cache(_list)  # a folder is listed once, and only where a name is not found as it is written

    def find(self, written: str, plain: str) -> str | None:
        """Path below the folder as the disk spells it; None if there is no such file, or more than one.

        Args:
            written: the path as its table has it; it comes first.
            plain: the same path in its plain form.
        """
        if not plain or _is_file(self._root, written):
            return written if plain else None
        found = ""
        for name in PurePosixPath(plain).parts:
            spelt = self._list(self._root / found).get(name, ())
            if len(spelt) != 1:
                return None
            found = f"{found}/{spelt[0]}" if found else spelt[0]
        return found if _is_file(self._root, found) else None


def _is_file(root: Path, path: str) -> bool:
    try:
        return (root / path).is_file()
    except (OSError, ValueError):
        return False


def _list(folder: Path) -> dict[str, tuple[str, ...]]:
    """Names in a folder by their plain form."""
    names: dict[str, tuple[str, ...]] = {}
    try:
        for path in folder.iterdir():
            plain = plain_text(path.name)
            names[plain] = (*names.get(plain, ()), path.name)
    except (OSError, ValueError):
        pass
    return names
