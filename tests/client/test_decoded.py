import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client.decoded import decoded_data

_WAIT = """
import sys, time
from pathlib import Path
from client.decoded import decoded_data
with decoded_data(None, data=Path("data"), home=Path("hospital")) as folder:
    (folder / "patients").write_text("decoded")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HIPFED_CACHE", raising=False)


def _home(tmp_path: Path, data: Path) -> Path:
    home = tmp_path / "hospital"
    home.mkdir(mode=0o700)
    lines = {"name": "east", "data": str(data), "server": "fed.example.org:9443", "cache": str(home / "cache")}
    (home / "hospital.toml").write_text("".join(f'{key} = "{value}"\n' for key, value in lines.items()))
    return home


def test_decoded_data_are_kept_in_the_home_of_the_same_hospital(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    home = _home(tmp_path, tmp_path / "data")

    with decoded_data(None, data=tmp_path / "link", home=home) as folder:
        assert folder == home / "cache"


def test_decoded_data_of_other_patients_do_not_go_into_the_home(tmp_path: Path) -> None:
    home = _home(tmp_path, tmp_path / "data")

    with decoded_data(None, data=tmp_path / "others", home=home) as folder:
        assert not folder.is_relative_to(home)


def test_decoded_data_go_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPFED_CACHE", str(tmp_path / "variable"))

    with decoded_data(tmp_path / "option", data=tmp_path, home=tmp_path) as folder:
        assert folder == tmp_path / "option"
    with decoded_data(None, data=tmp_path, home=tmp_path) as folder:
        assert folder == tmp_path / "variable"


def test_decoded_data_are_gone_after_the_command(tmp_path: Path) -> None:
    with decoded_data(None, data=tmp_path, home=tmp_path / "none") as folder:
        (folder / "patients").write_text("decoded")
        assert folder.stat().st_mode & 0o777 == 0o700

    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_decoded_data_are_gone_after_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", _WAIT], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert (folder / "patients").exists()
        process.send_signal(number)
        assert process.wait(timeout=30) != 0

    assert list(tmp_path.iterdir()) == []
