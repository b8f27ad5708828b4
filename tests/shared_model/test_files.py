"""Files that are replaced whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared_model.files import replace_file


def test_replace_file_leaves_the_old_content_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file(tmp_path / "model", b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "model", b"new")

    assert (tmp_path / "model").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_replace_file_leaves_the_old_content_when_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(tmp_path / "model", b"old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "model", b"new")

    assert (tmp_path / "model").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_replace_file_makes_the_folder_and_replaces_the_whole_file(tmp_path: Path) -> None:
    replace_file(tmp_path / "deep" / "file", b"a long first content")
    replace_file(tmp_path / "deep" / "file", b"short")

    assert (tmp_path / "deep" / "file").read_bytes() == b"short"
