"""hipfed's version: that of the package, with the commit where it lies in a checkout."""

import re
from functools import cache
from importlib.metadata import version
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_DIGITS = 12
_BUNDLED = "shared_model/bundled_commit.py"


@cache
def own_version() -> str:
    """Such as `0.1.0+6dfbb92a1c2d`; the package's alone where it was installed without a checkout.

    Two commits never pass as the same. Changes that are not committed are not seen.
    """
    commit = commit_of(_ROOT) or _bundled_commit(_ROOT)
    return f"{version('hipfed')}+{commit[:_DIGITS]}" if commit else version("hipfed")


def write_commit(root: Path, commit: str) -> None:
    """Put the commit beside the files of a bundle, which has none of git's own."""
    (root / _BUNDLED).write_text(f'"""Commit that this bundle is of."""\n\nCOMMIT = "{commit}"\n', encoding="utf-8")


def _bundled_commit(root: Path) -> str:
    path = root / _BUNDLED
    found = (
        re.search(r'^COMMIT = "([0-9a-f]+)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
        if path.is_file()
        else None
    )
    return found[1] if found else ""


def commit_of(root: Path) -> str:
    """The commit that a checkout is at, read from git's own files; "" where there is none."""
    try:
        git = root / ".git"
        if git.is_file():  # a further worktree
            git = root / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        return _find_reference(git, head.removeprefix("ref: "))
    except OSError:
        return ""


def _find_reference(git: Path, name: str) -> str:
    """A branch's commit: a file of its own, or a line among the packed ones; of a worktree in the common folder."""
    common = git / "commondir"
    places = [git, git / common.read_text(encoding="utf-8").strip()] if common.exists() else [git]
    for place in places:
        if (place / name).is_file():
            return (place / name).read_text(encoding="utf-8").strip()
    packed = places[-1] / "packed-refs"
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")
