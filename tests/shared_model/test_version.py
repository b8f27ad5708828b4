"""The version of a checkout names its commit."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from shared_model.version import commit_of, own_version


def _git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    _git(folder, "init", "-q", "-b", "main")
    _git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def test_commit_of_a_checkout_is_that_of_git(checkout: Path) -> None:
    first = commit_of(checkout)
    _git(checkout, "commit", "-q", "--allow-empty", "-m", "second")

    assert first == _git(checkout, "rev-parse", "HEAD~1")
    assert commit_of(checkout) == _git(checkout, "rev-parse", "HEAD") != first


def test_commit_is_found_in_packed_references_a_worktree_and_detached(checkout: Path, tmp_path: Path) -> None:
    head = _git(checkout, "rev-parse", "HEAD")
    _git(checkout, "worktree", "add", "-q", "-b", "other", str(tmp_path / "other"))
    assert commit_of(tmp_path / "other") == head
    _git(checkout, "pack-refs", "--all")
    assert commit_of(checkout) == commit_of(tmp_path / "other") == head
    _git(checkout, "checkout", "-q", "--detach")
    assert commit_of(checkout) == head


def test_folder_without_a_checkout_has_none(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == ""


def test_own_version_is_the_packages_with_the_commit() -> None:
    base, _, commit = own_version().partition("+")

    assert base == version("hipfed")
    root = Path(__file__).parents[2]
    assert commit == commit_of(root)[:12]
