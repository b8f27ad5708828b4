"""The registry: which hospitals may take part, in SQLite, beside the audit log that vouches for it.

The tables are a copy of what the log says. Opening the registry, and every change, replays the log and refuses to work
where a row differs, is missing or is too many; so a row that was written by hand is found as surely as a changed log
(audit_log.py says what is found and what not). What is served comes from the log.

A change is one transaction of row and entry: a crash leaves both or neither. Two commands at once wait for each other.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple
from datetime import datetime
from pathlib import Path
from typing import Self

from cryptography import x509

from server.enrolment import audit_log
from server.enrolment.audit_log import Entry, Head
from server.enrolment.authority import Authority
from server.enrolment.hospitals import (
    CREATED,
    ENROLLED,
    REVOKED,
    EnrolledHospital,
    State,
    find_active,
    refuse_conflict,
    replay,
)
from shared_model.errors import EnrolmentError, TamperedError
from shared_model.identity.enrolment_request import EnrolmentRequest
from shared_model.identity.fingerprint import certificate_fingerprint
from shared_model.identity.key_files import refuse_open_to_others

_SCHEMA = (
    audit_log.TABLE,
    """CREATE TABLE hospitals (
    node_key TEXT PRIMARY KEY,
    signing_key TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL COLLATE NOCASE,
    fingerprint TEXT NOT NULL,
    enrolled TEXT NOT NULL,
    revoked TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT""",
    "CREATE UNIQUE INDEX active_name ON hospitals (name) WHERE revoked = ''",
    "CREATE TABLE used_requests (nonce TEXT PRIMARY KEY) STRICT",
)
_WAIT_S = 20.0


class Registry:
    """The hospitals of one coordinator. Opening it verifies it; it is safe to share between threads."""

    def __init__(self, path: Path, certificate: x509.Certificate) -> None:
        """Open a registry.

        Args:
            path: registry.db; registry.head lies beside it.
            certificate: the authority's.

        Raises:
            TamperedError: it is not what the coordinator's own commands left.
            KeyFileError: a file is missing, or open to others.
        """
        refuse_open_to_others(path)
        self._path, self._head_path, self._certificate = path, path.with_suffix(".head"), certificate
        self._lock = threading.RLock()
        self._identity = _identity(path)
        self._connection = _connect(path)
        try:
            with _plain_errors(path):
                self._connection.execute("PRAGMA synchronous = FULL")
            self._load()
            self._move_head_up()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, authority: Authority, *, now: datetime) -> Self:
        """Make an empty registry, mode 0600.

        Raises:
            EnrolmentError: there is one already, or the disk is in the way.
        """
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            with closing(_connect(path)) as connection, _transaction(connection):
                for statement in _SCHEMA:
                    connection.execute(statement)
                details = {"authority": certificate_fingerprint(authority.certificate)}
                audit_log.append(connection, CREATED, details, sign=authority.sign, now=now)
                head = audit_log.read_head(connection)
        except (OSError, sqlite3.Error) as error:
            raise EnrolmentError(
                f"{path}: expected a place for a new registry, got: {error}. Choose another."
            ) from error
        audit_log.save_head(path.with_suffix(".head"), head)
        return cls(path, authority.certificate)

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The audit log."""
        with self._fresh() as state:
            return state.entries

    @property
    def hospitals(self) -> tuple[EnrolledHospital, ...]:
        """All that were ever enrolled, oldest first."""
        with self._fresh() as state:
            return state.hospitals

    def active_hospitals(self) -> tuple[EnrolledHospital, ...]:
        """Those that may take part now."""
        return tuple(hospital for hospital in self.hospitals if hospital.is_active)

    def hospital_of_key(self, node_key_pem: bytes) -> EnrolledHospital | None:
        """The hospital, active or revoked, of a node key in PEM; None for an unknown key.

        Cheap: where no other process has changed the database, it reads no more than that.

        Raises:
            TamperedError: the registry was changed by hand meanwhile.
        """
        with self._fresh():
            return self._by_key.get(node_key_pem)

    def admit(self, request: EnrolmentRequest, authority: Authority, *, now: datetime) -> EnrolledHospital:
        """Add a hospital.

        Raises:
            EnrolmentError: the request was used before, or its name or a key is taken or was revoked.
            TamperedError: the registry was changed by hand.
        """
        details = {
            "name": request.name,
            "node_key": request.node_key,
            "signing_key": request.signing_key,
            "fingerprint": request.fingerprint,
            "nonce": request.nonce,
        }

        def decide(state: State) -> Mapping[str, str]:
            refuse_conflict(state, request)
            return details

        return self._change(ENROLLED, decide, authority, now=now).hospitals[-1]

    def revoke(self, name: str, reason: str, authority: Authority, *, now: datetime) -> EnrolledHospital:
        """End one hospital's part; the others are not touched.

        Raises:
            EnrolmentError: no active hospital is called so.
            TamperedError: the registry was changed by hand.
        """

        def decide(state: State) -> Mapping[str, str]:
            chosen = find_active(state, name)
            return {"name": chosen.name, "node_key": chosen.node_key, "reason": reason}

        state = self._change(REVOKED, decide, authority, now=now)
        return next(one for one in state.hospitals if one.node_key == state.entries[-1].content["node_key"])

    def note(self, event: str, details: Mapping[str, str], authority: Authority, *, now: datetime) -> None:
        """Add an event to the audit log that concerns no hospital.

        Raises:
            TamperedError: the registry was changed by hand.
        """
        self._change(event, lambda _: details, authority, now=now)

    @contextmanager
    def _fresh(self) -> Iterator[State]:
        """The state, read again where another process has changed the database."""
        with self._lock, _plain_errors(self._path):
            if _identity(self._path) != self._identity:
                raise TamperedError(
                    f"{self._path}: expected the file that was opened, got another in its place. Restart this process "
                    "if it was restored from a backup."
                )
            if self._connection.execute("PRAGMA data_version").fetchone() != self._version:
                self._load()
            yield self._state

    def _load(self) -> None:
        with self._lock, _plain_errors(self._path):
            version = self._connection.execute("PRAGMA data_version").fetchone()
            head = audit_log.load_head(self._head_path)
            with _transaction(self._connection, kind="DEFERRED"):
                state = self._read(head)
            self._state, self._head = state, head
            self._by_key = {hospital.node_key_pem: hospital for hospital in state.hospitals}
            self._version = version  # last: what could not be read is tried again

    def _read(self, head: Head) -> State:
        _refuse_other_schema(self._connection)
        state = replay(audit_log.read_verified(self._connection, head, self._certificate))
        _refuse_other_rows(self._connection, state)
        return state

    def _change(
        self, event: str, decide: Callable[[State], Mapping[str, str]], authority: Authority, *, now: datetime
    ) -> State:
        """Add one event to the log, if the state allows it, and bring the tables up to it.

        Args:
            event: what happens.
            decide: the event's details, from the state; raises where the state does not allow it.
            authority: signs the log.
            now: this moment.

        Returns:
            The state after it.
        """
        if authority.certificate != self._certificate:
            raise EnrolmentError("authority: expected the one that made this registry, got another. Restore ca/.")
        with self._lock, _plain_errors(self._path):
            head = audit_log.load_head(self._head_path)
            with _transaction(self._connection):
                state = self._read(head)
                details = decide(state)
                entry = audit_log.append(self._connection, event, details, sign=authority.sign, now=now)
                state = replay((*state.entries, entry))
                _write_rows(self._connection, state)
            self._load()
            self._move_head_up()
        return state

    def _move_head_up(self) -> None:
        """Note the end of the log; the database's lock lets one command at a time do so, and each the newest end."""
        if self._head.number == len(self._state.entries):
            return
        with self._lock, _plain_errors(self._path), _transaction(self._connection):
            audit_log.save_head(self._head_path, audit_log.read_head(self._connection))


def _write_rows(connection: sqlite3.Connection, state: State) -> None:
    connection.execute("DELETE FROM hospitals")
    connection.executemany("INSERT INTO hospitals VALUES (?, ?, ?, ?, ?, ?, ?)", map(astuple, state.hospitals))
    connection.executemany("INSERT OR IGNORE INTO used_requests VALUES (?)", ((nonce,) for nonce in state.nonces))


def _refuse_other_rows(connection: sqlite3.Connection, state: State) -> None:
    rows = {EnrolledHospital(*row) for row in connection.execute("SELECT * FROM hospitals")}
    differing = sorted({hospital.name for hospital in rows ^ set(state.hospitals)})
    if differing:
        raise TamperedError(
            f"registry, hospitals: expected the rows that the audit log gives, got others: {', '.join(differing)}. "
            f"{audit_log.RESTORE}"
        )
    if {nonce for (nonce,) in connection.execute("SELECT nonce FROM used_requests")} != state.nonces:
        raise TamperedError(
            f"registry, used_requests: expected the rows that the audit log gives, got others. {audit_log.RESTORE}"
        )


def _refuse_other_schema(connection: sqlite3.Connection) -> None:
    """A trigger or a view could change what a query does."""
    found = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
    if found != set(_SCHEMA):
        raise TamperedError(f"registry: expected its own tables, got others. {audit_log.RESTORE}")


def _identity(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_dev, state.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)


@contextmanager
def _transaction(connection: sqlite3.Connection, *, kind: str = "IMMEDIATE") -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnrolmentError(
            f"{path}: expected a registry, got: {error.strerror}. Restore it from the backup."
        ) from error
    except sqlite3.OperationalError as error:
        raise EnrolmentError(
            f"{path}: expected to read and write the registry, got: {error}. Nothing was changed; try again."
        ) from error
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        raise TamperedError(f"{path}: expected a registry, got a damaged one ({error}). {audit_log.RESTORE}") from error
