"""Commands that are killed, and commands at the same time, each a process of its own."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from server.enrolment import audit_log
from server.enrolment.authority import Authority
from server.enrolment.registry import Registry
from shared_model.errors import TamperedError
from tests.server.enrolment.registry_hands import edit, names
from tests.server.enrolment.requests_of_hospitals import NOW, ask
from tests.waiting import PATIENCE_S

CHILD = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from server.enrolment import registry as module
from server.enrolment.authority import open_authority
from server.enrolment.registry import Registry
from tests.server.enrolment.requests_of_hospitals import NOW, ask

authority = open_authority(Path(sys.argv[2]), now=NOW)
registry = Registry(Path(sys.argv[1]), authority.certificate)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def child(code: str, registry_file: Path, ca: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code, str(registry_file), str(ca)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("module._write_rows = die", ["east", "west"]),  # within the transaction
        ("module.audit_log.save_head = die", ["east", "west", "north"]),  # committed, the head not yet written
    ],
    ids=["before-commit", "before-head"],
)
def test_killed_change_is_whole_or_absent(
    three: Registry, registry_file: Path, authority: Authority, ca: Path, moment: str, expected: list[str]
) -> None:
    three.close()
    process = child(f"{moment}\nregistry.admit(ask('north'), authority, now=NOW)", registry_file, ca)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -9

    with Registry(registry_file, authority.certificate) as again:
        assert names(again) == expected
        again.admit(ask("later"), authority, now=NOW)
    with Registry(registry_file, authority.certificate) as again:
        assert names(again) == [*expected, "later"]
        assert audit_log.load_head(registry_file.with_suffix(".head")).number == len(again.entries)


def test_head_that_lagged_is_moved_up_so_that_a_cut_is_found(
    three: Registry, registry_file: Path, authority: Authority, ca: Path
) -> None:
    three.close()
    process = child(
        "module.audit_log.save_head = die\nregistry.admit(ask('north'), authority, now=NOW)", registry_file, ca
    )
    process.communicate(timeout=PATIENCE_S)
    Registry(registry_file, authority.certificate).close()
    edit(registry_file, "DELETE FROM audit_log WHERE number = 6", "DELETE FROM hospitals WHERE name = 'north'")

    with pytest.raises(TamperedError, match="expected 6 entries or more"):
        Registry(registry_file, authority.certificate)


def test_registry_survives_a_kill_at_any_moment(
    registry: Registry, registry_file: Path, authority: Authority, ca: Path
) -> None:
    registry.close()
    done = 0
    for pause_s in (0.0, 0.013, 0.031):
        process = child(
            "for i in range(10_000):\n"
            "    registry.note('renewed', {}, authority, now=NOW)\n"
            "    print(len(registry.entries), flush=True)",
            registry_file,
            ca,
        )
        assert process.stdout is not None
        done = int(process.stdout.readline())
        time.sleep(pause_s)
        process.kill()
        rest, _ = process.communicate(timeout=PATIENCE_S)
        done = int(rest.split()[-1]) if rest.endswith("\n") else done

        with Registry(registry_file, authority.certificate) as again:
            assert len(again.entries) in (done, done + 1)


def test_two_processes_and_threads_wait_for_each_other(
    registry: Registry, registry_file: Path, authority: Authority, ca: Path
) -> None:
    code = "for i in range(8): registry.admit(ask(f'{os.getpid()}-{i}'), authority, now=NOW)"
    processes = [child(code, registry_file, ca) for _ in range(2)]

    def admit(which: int) -> None:
        for i in range(8):
            registry.admit(ask(f"t{which}-{i}"), authority, now=NOW)

    threads = [threading.Thread(target=admit, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0

    assert len(registry.active_hospitals()) == 32
    registry.close()
    with Registry(registry_file, authority.certificate) as again:
        assert len(again.entries) == 33
