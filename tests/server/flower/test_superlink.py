"""The SuperLink's patience with its database and with a ServerApp that starts, and who starts that."""

import sqlite3
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from server.flower.superexec import start_without_token
from server.flower.superlink import BUSY_MS, LEASE_S, lend_longer

sql_corestate: Any = import_module("flwr.supercore.corestate.sql_corestate")

# In a process of its own: what Flower has for all its databases is changed.
SAID = """
import sys
from server.flower.superlink import be_patient
from flwr.supercore.object_store import ObjectStoreFactory
be_patient()
store = ObjectStoreFactory(sys.argv[1]).store()
for pragma in ("busy_timeout", "journal_mode", "foreign_keys"):
    print(*store.query(f"PRAGMA {pragma}")[0].values())
"""


def test_it_waits_longer_for_its_database_and_keeps_all_else(tmp_path: Path) -> None:
    file = tmp_path / "state.db"

    done = subprocess.run([sys.executable, "-c", SAID, file], capture_output=True, text=True, check=False)

    assert done.stdout.split() == [str(BUSY_MS), "wal", "1"], done.stderr
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT count(*) FROM objects").fetchone() == (0,)


COMMAND = """
from importlib import import_module
from server.flower.superlink import start_own_superexec
start_own_superexec()
print(*import_module("flwr.superlink.cli.flower_superlink")._get_superexec_command("127.0.0.1:9", None, None, 7, False))
"""


def test_it_starts_our_superexec_with_flowers_options() -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, check=True)

    options = "--insecure --runtime-api-address 127.0.0.1:9 --parent-pid 7"
    assert done.stdout.strip() == f"{sys.executable} -P -m server.flower.superexec {options}"


def test_server_app_has_longer_for_its_first_word_and_as_long_as_ever_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual_s = sql_corestate.HEARTBEAT_PATIENCE * sql_corestate.HEARTBEAT_DEFAULT_INTERVAL
    for name in ("HEARTBEAT_DEFAULT_INTERVAL", "HEARTBEAT_PATIENCE"):
        monkeypatch.setattr(sql_corestate, name, getattr(sql_corestate, name))  # put back at the end

    lend_longer()

    assert sql_corestate.HEARTBEAT_DEFAULT_INTERVAL == LEASE_S
    assert pytest.approx(usual_s) == sql_corestate.HEARTBEAT_PATIENCE * sql_corestate.HEARTBEAT_DEFAULT_INTERVAL


def test_token_reaches_the_program_and_is_in_no_command_line() -> None:
    secret = "ab" * 16
    read = "import sys; from pathlib import Path; print(sys.argv[1:], Path(sys.argv[2]).read_text())"
    words = [sys.executable, "-c", read, "--token", secret, "--insecure"]

    with start_without_token(words, stdout=subprocess.PIPE) as process:
        said = process.stdout.read().decode() if process.stdout else ""

    shown, told = said.rsplit(" ", 1)
    assert told.strip() == secret
    assert secret not in shown
    assert "'--token-file', '/dev/fd/" in shown
    assert shown.endswith("'--insecure']")
