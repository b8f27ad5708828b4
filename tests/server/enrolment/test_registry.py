import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.enrolment import audit_log
from server.enrolment.authority import Authority, make_authority
from server.enrolment.hospitals import EnrolledHospital
from server.enrolment.registry import Registry
from shared_model.errors import EnrolmentError, KeyFileError, TamperedError
from shared_model.identity.key_files import replace_whole
from tests.server.coordinator_home import is_active
from tests.server.enrolment.registry_hands import edit, names
from tests.server.enrolment.requests_of_hospitals import NOW, ask


def test_registry_is_found_as_it_was_left(three: Registry, registry_file: Path, authority: Authority) -> None:
    three.close()

    with Registry(registry_file, authority.certificate) as again:
        assert names(again) == ["east", "west"]
        assert [entry.event for entry in again.entries] == ["created", *["enrolled"] * 3, "revoked"]


@pytest.mark.usefixtures("registry")
def test_existing_registry_is_never_overwritten(registry_file: Path, authority: Authority) -> None:
    with pytest.raises(EnrolmentError, match=r"registry\.db: expected a place for a new registry, got: .*File exists"):
        Registry.create(registry_file, authority, now=NOW)


@pytest.mark.parametrize("file", ["registry.db", "registry.head"])
@pytest.mark.usefixtures("registry")
def test_registry_that_others_may_read_is_refused(registry_file: Path, authority: Authority, file: str) -> None:
    (registry_file.parent / file).chmod(0o644)

    with pytest.raises(KeyFileError, match=rf"{file}: expected mode 0600, got 0644"):
        Registry(registry_file, authority.certificate)


EXCHANGE = (
    "UPDATE audit_log SET number = -number WHERE number < 4;UPDATE audit_log SET number = number + 4 WHERE number < 0"
)
TAMPERING = {
    "hospital added": (
        "INSERT INTO hospitals VALUES ('key', 'sign', 'evil', 'f', '2026-01-01T00:00:00Z', '', '')",
        "hospitals: expected the rows that the audit log gives, got others: evil",
    ),
    "hospital deleted": ("DELETE FROM hospitals WHERE name = 'east'", "others: east"),
    "key exchanged": ("UPDATE hospitals SET node_key = 'evil' WHERE name = 'east'", "others: east"),
    "revocation undone": ("UPDATE hospitals SET revoked = '', reason = '' WHERE name = 'south'", "others: south"),
    "reason changed": ("UPDATE hospitals SET reason = 'nicer' WHERE name = 'south'", "others: south"),
    "capitals changed": ("UPDATE hospitals SET name = 'East' WHERE name = 'east'", "others: East, east"),
    "used request forgotten": ("DELETE FROM used_requests", "used_requests: expected the rows"),
    "used request added": ("INSERT INTO used_requests VALUES ('ab')", "used_requests: expected the rows"),
    "first entry changed": ("UPDATE audit_log SET time = '2020-01-01T00:00:00Z' WHERE number = 1", "log, entry 1: exp"),
    "entry changed": (
        "UPDATE audit_log SET details = replace(details, 'east', 'evil') WHERE number = 2",
        "log, entry 2: exp",
    ),
    "entry deleted": ("DELETE FROM audit_log WHERE number = 3", "log, entry 3: exp"),
    "entries exchanged": (
        EXCHANGE,
        "log, entry 1: exp",
    ),
    "end cut off": (
        "DELETE FROM audit_log WHERE number = 5",
        "expected 5 entries or more, as registry.head says, got 4",
    ),
    "all deleted": ("DELETE FROM audit_log", "expected 5 entries or more"),
    "signature changed": (
        "UPDATE audit_log SET signature = '00' WHERE number = 5",
        "entry 5: expected this coordinator",
    ),
    "signature unreadable": ("UPDATE audit_log SET signature = 'xy' WHERE number = 5", "entry 5: expected this coord"),
    "trigger added": (
        "CREATE TRIGGER evil AFTER INSERT ON hospitals BEGIN DELETE FROM used_requests; END",
        "expected its own tables",
    ),
    "table added": ("CREATE TABLE evil (a TEXT)", "expected its own tables"),
    "table dropped": ("DROP TABLE used_requests", "expected its own tables"),
}


@pytest.mark.parametrize(("statements", "said"), TAMPERING.values(), ids=TAMPERING.keys())
def test_tampered_registry_is_refused(
    three: Registry, registry_file: Path, authority: Authority, statements: str, said: str
) -> None:
    three.close()
    edit(registry_file, *(statements.split(";") if "TRIGGER" not in statements else [statements]))

    with pytest.raises(TamperedError, match=said):
        Registry(registry_file, authority.certificate)


def test_cut_off_end_is_found_when_its_rows_were_made_to_fit(
    three: Registry, registry_file: Path, authority: Authority
) -> None:
    three.close()
    edit(
        registry_file,
        "DELETE FROM audit_log WHERE number = 5",
        "UPDATE hospitals SET revoked = '', reason = '' WHERE name = 'south'",
    )

    with pytest.raises(TamperedError, match="the end was cut off, or an old copy was put back"):
        Registry(registry_file, authority.certificate)


def test_old_copy_of_the_database_is_refused(three: Registry, registry_file: Path, authority: Authority) -> None:
    shutil.copy(registry_file, registry_file.with_suffix(".old"))
    three.revoke("east", "left", authority, now=NOW)
    three.close()
    registry_file.with_suffix(".old").replace(registry_file)

    with pytest.raises(TamperedError, match=r"expected 6 entries or more, as registry\.head says, got 5"):
        Registry(registry_file, authority.certificate)


def test_log_forged_by_another_authority_is_refused(
    three: Registry, registry_file: Path, authority: Authority, tmp_path: Path
) -> None:
    """The forger can write the database and the head, and lacks only the authority's key."""
    forger = make_authority(tmp_path / "forger", organisation="North trust", now=NOW)
    with closing(sqlite3.connect(registry_file, isolation_level=None)) as connection:
        audit_log.append(connection, "revoked", {}, sign=forger.sign, now=NOW)
        audit_log.save_head(registry_file.with_suffix(".head"), audit_log.read_head(connection))
    three.close()

    with pytest.raises(TamperedError, match="entry 6: expected this coordinator's signature, got none that is right"):
        Registry(registry_file, authority.certificate)


@pytest.mark.parametrize("head", ["", "5", "x:" + "0" * 64, "5:" + "0" * 64, "4:" + "0" * 64, "-1:" + "0" * 64])
def test_other_head_is_refused(three: Registry, registry_file: Path, authority: Authority, head: str) -> None:
    three.close()
    replace_whole(registry_file.with_suffix(".head"), head.encode(), private=True)

    with pytest.raises(TamperedError, match=r"expected NUMBER:HASH|expected the hash that registry\.head says"):
        Registry(registry_file, authority.certificate)


@pytest.mark.parametrize("file", ["registry.db", "registry.head"])
def test_missing_file_is_refused(three: Registry, registry_file: Path, authority: Authority, file: str) -> None:
    three.close()
    (registry_file.parent / file).unlink()

    with pytest.raises(KeyFileError, match=rf"{file}: expected a file that can be read, got: No such file"):
        Registry(registry_file, authority.certificate)


@pytest.mark.parametrize("damage", [b"", b"no database", None], ids=["empty", "text", "half"])
def test_damaged_database_is_refused(
    three: Registry, registry_file: Path, authority: Authority, damage: bytes | None
) -> None:
    three.close()
    content = registry_file.read_bytes()
    replace_whole(registry_file, content[: len(content) // 2] if damage is None else damage, private=True)

    with pytest.raises(TamperedError, match="registry"):
        Registry(registry_file, authority.certificate)


@settings(max_examples=60)
@given(damages=st.lists(st.tuples(st.integers(0, 1_000_000), st.integers(1, 255)), min_size=1, max_size=6))
def test_flipped_bytes_are_found_or_change_nothing(
    registry_of_three: tuple[Path, tuple[EnrolledHospital, ...]], authority: Authority, damages: list[tuple[int, int]]
) -> None:
    path, hospitals = registry_of_three
    content = bytearray(path.read_bytes())
    for where, what in damages:
        content[where % len(content)] ^= what
    damaged = path.with_name("damaged.db")
    replace_whole(damaged, bytes(content), private=True)
    shutil.copy(path.with_suffix(".head"), damaged.with_suffix(".head"))

    try:
        with Registry(damaged, authority.certificate) as opened:
            found = opened.hospitals
    except EnrolmentError:
        return
    assert found == hospitals


def test_open_registry_refuses_to_answer_once_it_is_tampered_with(three: Registry, registry_file: Path) -> None:
    key = three.active_hospitals()[0].node_key_pem
    edit(registry_file, "UPDATE hospitals SET revoked = '', reason = '' WHERE name = 'south'")

    for _ in range(2):
        with pytest.raises(TamperedError, match="others: south"):
            is_active(three, key)


def test_open_registry_refuses_to_change_what_was_tampered_with(
    three: Registry, registry_file: Path, authority: Authority
) -> None:
    edit(registry_file, "DELETE FROM hospitals WHERE name = 'east'")

    with pytest.raises(TamperedError, match="others: east"):
        three.admit(ask("north"), authority, now=NOW)


def test_revocation_by_another_process_holds_at_once(
    three: Registry, registry_file: Path, authority: Authority
) -> None:
    east, west = three.active_hospitals()
    assert is_active(three, east.node_key_pem)

    with Registry(registry_file, authority.certificate) as other:
        other.revoke("east", "left", authority, now=NOW)

    assert not is_active(three, east.node_key_pem)
    assert is_active(three, west.node_key_pem)


def test_open_registry_refuses_to_answer_when_its_file_is_replaced(three: Registry, registry_file: Path) -> None:
    """Otherwise a revocation in the new file would never be seen."""
    shutil.copy(registry_file, registry_file.with_suffix(".copy"))
    registry_file.with_suffix(".copy").replace(registry_file)

    with pytest.raises(TamperedError, match="expected the file that was opened, got another in its place"):
        three.active_hospitals()


def test_key_is_looked_up_by_one_question_to_the_database(registry: Registry, authority: Authority) -> None:
    keys = [registry.admit(ask(f"h{i}"), authority, now=NOW).node_key_pem for i in range(12)]
    asked: list[str] = []
    registry._connection.set_trace_callback(asked.append)

    assert all(is_active(registry, key) for key in keys)

    assert asked == ["PRAGMA data_version"] * len(keys)  # the gateway asks at each request: signatures stay unread


def test_another_authority_cannot_change_the_registry(registry: Registry, tmp_path: Path) -> None:
    other = make_authority(tmp_path / "other", organisation="x", now=NOW)

    with pytest.raises(EnrolmentError, match="authority: expected the one that made this registry"):
        registry.admit(ask("east"), other, now=NOW)


def test_entries_say_who_when_and_what(registry: Registry, authority: Authority) -> None:
    request = ask("east")
    registry.admit(request, authority, now=NOW + timedelta(seconds=5))

    entry = registry.entries[-1]

    assert (entry.number, entry.time, entry.event) == (2, "2026-03-01T12:30:05Z", "enrolled")
    assert entry.previous == registry.entries[0].hash
    assert entry.content == {
        "by": entry.content["by"],
        "name": "east",
        "node_key": request.node_key,
        "signing_key": request.signing_key,
        "fingerprint": request.fingerprint,
        "nonce": request.nonce,
    }
    assert entry.content["by"]


def test_refused_change_leaves_no_trace(three: Registry, authority: Authority) -> None:
    entries = three.entries

    with pytest.raises(EnrolmentError):
        three.admit(ask("east"), authority, now=NOW)

    assert three.entries == entries


def test_noted_head_is_held_against_the_log(three: Registry) -> None:
    head = audit_log.Head(2, three.entries[1].hash)

    audit_log.refuse_other_history(three.entries, head, source="--noted")
    with pytest.raises(TamperedError, match="entry 2: expected the hash that --noted says, got another"):
        audit_log.refuse_other_history(three.entries, replace(head, hash="0" * 64), source="--noted")
    with pytest.raises(TamperedError, match="expected 9 entries or more, as --noted says, got 5"):
        audit_log.refuse_other_history(three.entries, replace(head, number=9), source="--noted")


def test_change_is_refused_plainly_when_the_database_stays_locked(
    registry: Registry, registry_file: Path, authority: Authority
) -> None:
    registry._connection.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(registry_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(EnrolmentError, match=r"registry\.db: expected to read and write .* locked\. Nothing was"):
            registry.admit(ask("east"), authority, now=NOW)

    assert registry.admit(ask("east"), authority, now=NOW).name == "east"
