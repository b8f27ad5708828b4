"""How a command ends that hipfed refuses."""

import errno

import pytest
import typer

from shared_model.errors import HipfedError
from shared_model.process.command_refusal import plain_refusal


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (HipfedError("no."), "hipfed-x: no."),
        (OSError(errno.ENOSPC, "full", "/a/file"), "hipfed-x: /a/file: expected room on its disk"),
        (OSError(errno.EACCES, "Denied", "/a/file"), "hipfed-x: /a/file: expected a place that this user may read and"),
        (OSError(errno.EPERM, "Not you", "/a/file"), "hipfed-x: /a/file: expected a place that this user may read and"),
        (OSError(errno.EROFS, "Read-only", "/a/file"), "hipfed-x: /a/file: expected a place that this user may read"),
    ],
)
def test_what_a_person_can_mend_is_one_line(error: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, plain_refusal("hipfed-x"):
        raise error

    assert ended.value.exit_code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)


def test_what_only_a_programmer_can_mend_keeps_its_traceback() -> None:
    with pytest.raises(FileNotFoundError), plain_refusal("hipfed-x"):
        raise FileNotFoundError(errno.ENOENT, "gone", "/a/file")
