"""The coordinator's home: the folder of its certificates, registry and settings. Only its owner may enter it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, model_validator

from server.enrolment.authority import (
    issue_server_certificate,
    make_authority,
    open_authority,
    read_certificate,
)
from server.enrolment.hospitals import RENEWED
from server.enrolment.registry import Registry
from shared_model.identity.address import Address, Host, split_address
from shared_model.identity.fingerprint import certificate_fingerprint
from shared_model.identity.key_files import make_private_folder, refuse_changeable_folder, write_new
from shared_model.process.toml_file import read_toml, toml_bytes


class CoordinatorSettings(BaseModel):
    """coordinator.toml.

    Attributes:
        address: HOST:PORT under which hospitals reach the coordinator.
        organisation: who runs it.
        superlink_port: of Flower's SuperLink, on this machine only.
        names: further DNS names and IP addresses under which it is reached.
        listen: address of the network interface that the gateway listens on; "0.0.0.0" is all of IPv4, "::" of IPv6.
        listen_port: the gateway's port on this machine, where it differs from the one of `address`; 0 = the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Address
    organisation: str = Field(min_length=1, max_length=64)
    superlink_port: int = Field(default=9442, ge=1, le=65_535)
    names: tuple[Host, ...] = ()
    listen: str = "0.0.0.0"  # noqa: S104 - the gateway is the one public listener
    listen_port: int = Field(default=0, ge=0, le=65_535)

    @model_validator(mode="after")
    def _ports_differ(self) -> CoordinatorSettings:
        if self.port == self.superlink_port:
            raise ValueError(
                f"superlink_port: expected another port than the gateway's, got {self.superlink_port} for both. "
                "Choose another."
            )
        return self

    @property
    def port(self) -> int:
        """The port that the gateway listens on."""
        return self.listen_port or split_address(self.address)[1]

    @property
    def superlink(self) -> str:
        """HOST:PORT of the SuperLink."""
        return f"127.0.0.1:{self.superlink_port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """All names of the server's certificate, besides this machine's own."""
        return split_address(self.address)[0], *self.names


@dataclass(frozen=True)
class CoordinatorHome:
    """Where everything lies in a coordinator's home.

    Attributes:
        folder: the home.
    """

    folder: Path

    @property
    def settings_file(self) -> Path:
        """coordinator.toml."""
        return self.folder / "coordinator.toml"

    @property
    def authority(self) -> Path:
        """Folder of ca.crt and ca.key."""
        return self.folder / "ca"

    @property
    def tls(self) -> Path:
        """Folder of server.crt and server.key."""
        return self.folder / "tls"

    @property
    def registry(self) -> Path:
        """registry.db."""
        return self.folder / "registry.db"

    @property
    def ca(self) -> Path:
        """Certificate that hospitals and the coordinator's own processes trust."""
        return self.authority / "ca.crt"

    @property
    def database(self) -> Path:
        """Flower's database."""
        return self.folder / "superlink" / "state.db"

    @property
    def flower(self) -> Path:
        """FLWR_HOME of all of Flower's processes here."""
        return self.folder / "flower"

    @property
    def processes(self) -> Path:
        """Locks, logs and status of the processes."""
        return self.folder / "processes"

    @property
    def seen(self) -> Path:
        """When the gateway last heard from each hospital."""
        return self.processes / "seen.json"

    @cached_property
    def settings(self) -> CoordinatorSettings:
        """As `read_settings`, once."""
        return self.read_settings()

    def read_settings(self) -> CoordinatorSettings:
        """What coordinator.toml says.

        Raises:
            KeyFileError: somebody else may change what is in the home.
            SettingsError: the file is missing or wrong.
        """
        remedy = "Name the right --home, or run `hipfed-server provision` first."
        settings = read_toml(self.settings_file, CoordinatorSettings, remedy=remedy)
        refuse_changeable_folder(self.folder)
        return settings

    def read_authority_certificate(self) -> x509.Certificate:
        """The certificate that the hospitals hold.

        Raises:
            EnrolmentError: it is missing or damaged.
        """
        return read_certificate(self.ca)

    def open_registry(self) -> Registry:
        """The registry, verified; close it after use.

        Raises:
            SettingsError: there is no coordinator in this home.
            EnrolmentError: the certificate is missing or damaged.
            TamperedError: it is not what the coordinator's own commands left.
            KeyFileError: a file is missing, or open to others; or somebody else may change what is in the home.
        """
        self.read_settings()
        return Registry(self.registry, self.read_authority_certificate())


def provision(home: CoordinatorHome, settings: CoordinatorSettings, *, now: datetime, days: int) -> x509.Certificate:
    """Make a coordinator's home: authority, server certificate, empty registry and settings.

    Args:
        home: a folder that does not exist or is empty.
        settings: the coordinator's.
        now: this moment.
        days: how long the server's certificate is valid.

    Returns:
        The server's certificate.

    Raises:
        KeyFileError: the folder holds something already, or cannot be written.
        EnrolmentError: the time is out of range.
        SettingsError: the organisation's name cannot be printed.
    """
    content = toml_bytes(settings.model_dump())
    make_private_folder(home.folder)
    authority = make_authority(home.authority, organisation=settings.organisation, now=now)
    certificate = issue_server_certificate(home.tls, authority, settings.hosts, now=now, days=days)
    Registry.create(home.registry, authority, now=now).close()
    write_new(home.settings_file, content, private=True)  # last: all is there
    return certificate


def renew(home: CoordinatorHome, *, now: datetime, days: int) -> x509.Certificate:
    """Give the server a new key and certificate by the same authority. Hospitals need do nothing.

    Args:
        home: the coordinator's.
        now: this moment.
        days: how long the new certificate is valid.

    Returns:
        The server's certificate.

    Raises:
        SettingsError: coordinator.toml is missing or wrong.
        EnrolmentError: the authority is damaged or expired, or the time is out of range.
        KeyFileError: a key is missing or open to others, or the files cannot be written.
    """
    settings, authority = home.read_settings(), open_authority(home.authority, now=now)
    with home.open_registry() as registry:
        certificate = issue_server_certificate(home.tls, authority, settings.hosts, now=now, days=days)
        details = {"certificate": certificate_fingerprint(certificate)}
        registry.note(RENEWED, details, authority, now=now)
    return certificate
