"""Files that are replaced whole."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from shared_model.process.files import remove_unfinished, replace_file, rewrite_file


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


def test_rewrite_file_takes_the_old_files_room_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file(tmp_path / "status", b"a long state")
    monkeypatch.setattr(tempfile, "mkstemp", _refuse_for_want_of_room)

    rewrite_file(tmp_path / "status", b"failed")

    assert (tmp_path / "status").read_bytes() == b"failed"
    with pytest.raises(OSError, match="No space left"):
        rewrite_file(tmp_path / "new", b"failed")


def _refuse_for_want_of_room(**_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_remove_unfinished_takes_only_what_a_killed_process_was_writing(tmp_path: Path) -> None:
    replace_file(tmp_path / "model", b"whole")
    (tmp_path / ".app.lock").touch()
    (tmp_path / ".model.x3b_77.unfinished").write_bytes(b"who")

    remove_unfinished(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".app.lock", "model"]
