"""The enrolled hospitals, as the running deployment sees them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from server.deployment.home import CoordinatorHome
from server.submission import CONNECTION, flower_environment
from shared_model.errors import SettingsError


@dataclass(frozen=True)
class EnrolledHospital:
    """One row of the registry.

    Attributes:
        name: of the hospital.
        node_key: public key of its SuperNode, OpenSSH.
        revoked: when it was revoked; "" if it takes part.
    """

    name: str
    node_key: str
    revoked: str

    @property
    def node_key_pem(self) -> bytes:
        """The key as a SuperNode sends it."""
        return load_ssh_public_key(self.node_key.encode()).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def list_hospitals(home: CoordinatorHome) -> list[EnrolledHospital]:
    """All hospitals that were ever enrolled, by name.

    Raises:
        SettingsError: the registry cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"file:{home.registry}?mode=ro", uri=True, timeout=5.0)) as connection:
            rows = connection.execute("SELECT name, node_key, revoked FROM hospitals ORDER BY name").fetchall()
    except sqlite3.Error as error:
        raise SettingsError(
            f"{home.registry}: expected the registry, got: {error}. Restore it from a backup."
        ) from error
    return [EnrolledHospital(*row) for row in rows]


def find_hospital(home: CoordinatorHome, node_key_pem: bytes) -> str | None:
    """Name of the hospital with this key; None if there is none, or not any more."""
    matches = [one.name for one in list_hospitals(home) if not one.revoked and one.node_key_pem == node_key_pem]
    return matches[0] if matches else None


def sync_nodes(home: CoordinatorHome) -> list[str]:
    """Register the keys of all hospitals that take part with the running SuperLink; returns their names.

    Raises:
        SettingsError: Flower refused one.
    """
    active = [hospital for hospital in list_hospitals(home) if not hospital.revoked]
    for hospital in active:
        with tempfile.NamedTemporaryFile("w", suffix=".pub") as file:
            file.write(hospital.node_key)
            file.flush()
            command = ["flwr", "supernode", "register", file.name, CONNECTION, "--name", hospital.name]
            done = subprocess.run(  # noqa: S603 - Flower's own command
                [*command, "--format", "json"],
                env=flower_environment(home.flower),
                cwd=home.flower,
                capture_output=True,
                check=False,
            )
        said = (done.stdout + done.stderr).decode(errors="replace")
        if done.returncode != 0 and "already" not in said:
            raise SettingsError(
                f"{hospital.name}: expected Flower to register its key, got: {json.dumps(said[-300:])}."
            )
    return [hospital.name for hospital in active]
