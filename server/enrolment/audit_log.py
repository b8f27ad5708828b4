"""The audit log: who was enrolled and revoked, when and by whom, as a chain in which every entry covers those before.

Each entry holds the hash of the one before it, its own hash, and the authority's signature of that hash. A file beside
the database, the head, says how many entries there are and ends with which hash.

What is found: an entry that was changed, inserted, removed, reordered or forged, by anybody who can neither use the
authority's key nor exchange its certificate, against which the signature is checked; and, where the head is as it was
left, a log that was cut at its end. What is not found: database and head both put back to what they were at one
earlier moment. Against that, note the head that `hipfed-server audit` prints where this machine cannot write, and
compare (`--noted`). Whoever holds the authority's key can write any log.

Why the head may lag one step and never lead: it is written after the entry is committed, so a crash between the two
leaves a log that is longer than its head says, with a signature that is right. The next command moves the head up.
"""

import hashlib
import json
import os
import pwd
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from cryptography import x509

from server.enrolment.authority import verify_signature
from shared_model.errors import TamperedError
from shared_model.identity.key_files import read_private, replace_whole
from shared_model.protocol.canonical_json import canonical_json

TABLE = """CREATE TABLE audit_log (
    number INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    event TEXT NOT NULL,
    details TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT"""
RESTORE = "Nothing was done. Find out who changed it, then restore registry.db and registry.head from one backup."

_BEGINNING = "0" * 64
_SIGNED_AS = b"hipfed audit log\n"


@dataclass(frozen=True)
class Entry:
    """One event.

    Attributes:
        number: 1 for the first.
        time: UTC, to the second, by the coordinator's clock.
        event: created, enrolled, revoked or renewed.
        details: JSON of what the event concerns, and under `by` the user who caused it.
        previous: hash of the entry before.
        hash: SHA-256 of all the above in canonical JSON.
        signature: the authority's, of the hash; hexadecimal.
    """

    number: int
    time: str
    event: str
    details: str
    previous: str
    hash: str
    signature: str

    @property
    def content(self) -> Mapping[str, str]:
        """The details."""
        return cast("Mapping[str, str]", json.loads(self.details))


@dataclass(frozen=True)
class Head:
    """How long the log is, and the hash of its last entry."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


def append(
    connection: sqlite3.Connection,
    event: str,
    details: Mapping[str, str],
    *,
    sign: Callable[[bytes], bytes],
    now: datetime,
) -> Entry:
    """Add an entry within the caller's transaction.

    Args:
        connection: to the registry, in a transaction that may write.
        event: what happened.
        details: whom it concerns.
        sign: the authority's.
        now: this moment.

    Returns:
        The entry.
    """
    last = read_head(connection)
    number, time = last.number + 1, now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = canonical_json({**details, "by": _user()}).decode()
    digest = _hash(number, time, event, text, last.hash)
    entry = Entry(number, time, event, text, last.hash, digest, sign(_SIGNED_AS + digest.encode()).hex())
    connection.execute("INSERT INTO audit_log VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(entry))
    return entry


def read_head(connection: sqlite3.Connection) -> Head:
    """The end of the log as the database has it."""
    row = connection.execute("SELECT number, hash FROM audit_log ORDER BY number DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head(0, _BEGINNING)


def read_verified(connection: sqlite3.Connection, head: Head, certificate: x509.Certificate) -> tuple[Entry, ...]:
    """All entries, after checking that they are what the authority signed.

    Args:
        connection: to the registry.
        head: the noted head; read before the log is, because another command may add to both meanwhile.
        certificate: the authority's.

    Raises:
        TamperedError: an entry was changed, removed, added or reordered, or the end is missing.
    """
    entries = tuple(Entry(*row) for row in connection.execute("SELECT * FROM audit_log ORDER BY number"))
    previous = _BEGINNING
    for number, entry in enumerate(entries, start=1):
        digest = _hash(number, entry.time, entry.event, entry.details, previous)
        if (entry.number, entry.previous, entry.hash) != (number, previous, digest):
            raise TamperedError(
                f"audit log, entry {number}: expected the one that was written, got one that was changed, removed, "
                f"added or moved. {RESTORE}"
            )
        previous = digest
    refuse_other_history(entries, head, source="registry.head")
    if not entries or not _is_signed(entries[-1], certificate):  # its hash covers all before it
        raise TamperedError(
            f"audit log, entry {len(entries)}: expected this coordinator's signature, got none that is right. {RESTORE}"
        )
    return entries


def refuse_other_history(entries: tuple[Entry, ...], head: Head, *, source: str) -> None:
    """Refuse a log that does not hold what a head noted.

    Raises:
        TamperedError: the log ends earlier, or has another entry there.
    """
    if len(entries) < head.number:
        raise TamperedError(
            f"audit log: expected {head.number} entries or more, as {source} says, got {len(entries)}: the end was cut "
            f"off, or an old copy was put back. {RESTORE}"
        )
    if head.number and entries[head.number - 1].hash != head.hash:
        raise TamperedError(
            f"audit log, entry {head.number}: expected the hash that {source} says, got another. {RESTORE}"
        )


def load_head(path: Path) -> Head:
    """The head beside the database.

    Raises:
        TamperedError: it is not one.
        KeyFileError: it is missing, or open to others.
    """
    return parse_head(read_private(path).decode("ascii", errors="replace").strip(), source=path.name)


def parse_head(text: str, *, source: str) -> Head:
    """`NUMBER:HASH`.

    Raises:
        TamperedError: it is not of this form.
    """
    number, _, digest = text.partition(":")
    if not (number.isascii() and number.isdigit() and len(number) < 16) or len(digest) != len(_BEGINNING):
        raise TamperedError(f"{source}: expected NUMBER:HASH, got {text[:100]!r}. {RESTORE}")
    return Head(int(number), digest)


def save_head(path: Path, head: Head) -> None:
    """Replace the head beside the database.

    Raises:
        KeyFileError: it cannot be written.
    """
    replace_whole(path, f"{head}\n".encode(), private=True)


def _hash(number: int, time: str, event: str, details: str, previous: str) -> str:
    content = {"number": number, "time": time, "event": event, "details": details, "previous": previous}
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _is_signed(entry: Entry, certificate: x509.Certificate) -> bool:
    try:
        signature = bytes.fromhex(entry.signature)
    except ValueError:
        return False
    return verify_signature(certificate, _SIGNED_AS + entry.hash.encode(), signature)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"
