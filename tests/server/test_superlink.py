"""The SuperLink's connections to its database."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

from server.superlink import BUSY_MS

# In a process of its own: what Flower has for all its databases is changed.
SAID = """
import sys
from server.superlink import be_patient
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
