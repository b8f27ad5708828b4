"""The coordinator's folder: where everything lies that a deployment needs, and what coordinator.toml says."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shared_model.errors import SettingsError

FILE = "coordinator.toml"


class CoordinatorConfig(BaseModel):
    """What coordinator.toml says.

    Attributes:
        address: HOST:PORT under which the hospitals reach the gateway.
        superlink_port: of the SuperLink, on loopback only.
        organisation: whose coordinator it is.
        listen: address of the network interface that the gateway listens on.
        listen_port: the gateway's port on this machine, where it differs from the one of `address`; 0 = the same.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    address: str
    superlink_port: int = Field(ge=1, le=65535)
    organisation: str = ""
    listen: str = "0.0.0.0"  # noqa: S104 - the gateway is the one public listener
    listen_port: int = Field(default=0, ge=0, le=65535)

    @field_validator("address")
    @classmethod
    def _has_port(cls, address: str) -> str:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("expected HOST:PORT")
        return address

    @property
    def port(self) -> int:
        """The port that the gateway listens on."""
        return self.listen_port or int(self.address.rpartition(":")[2])

    @property
    def superlink(self) -> str:
        """HOST:PORT of the SuperLink."""
        return f"127.0.0.1:{self.superlink_port}"


@dataclass(frozen=True)
class CoordinatorHome:
    """Paths of a coordinator.

    Attributes:
        path: the folder, absolute.
        config: what its coordinator.toml says.
    """

    path: Path
    config: CoordinatorConfig

    @property
    def ca(self) -> Path:
        """Certificate that hospitals and the coordinator's own processes trust."""
        return self.path / "ca" / "ca.crt"

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.path / "tls" / "server.crt"

    @property
    def key(self) -> Path:
        """The server's private key."""
        return self.path / "tls" / "server.key"

    @property
    def registry(self) -> Path:
        """Database of hospitals."""
        return self.path / "registry.db"

    @property
    def database(self) -> Path:
        """Flower's database."""
        return self.path / "superlink" / "state.db"

    @property
    def flower(self) -> Path:
        """FLWR_HOME of all of Flower's processes here."""
        return self.path / "flower"

    @property
    def processes(self) -> Path:
        """Locks, logs and status of the processes."""
        return self.path / "processes"

    @property
    def seen(self) -> Path:
        """When the gateway last heard from each hospital."""
        return self.processes / "seen.json"


def open_home(path: Path) -> CoordinatorHome:
    """The coordinator of a folder.

    Raises:
        SettingsError: it is none, or others can read it.
    """
    path = path.expanduser().resolve()
    file = path / FILE
    if not file.is_file():
        raise SettingsError(
            f"--home at {path}: expected a coordinator's folder, got none with {FILE}. "
            "Make one with `hipfed-server provision`."
        )
    if path.stat().st_mode & 0o077:
        raise SettingsError(
            f"--home at {path}: expected a folder that only its owner can open, got mode "
            f"{path.stat().st_mode & 0o777:04o}. Say `chmod 700 {path}`."
        )
    try:
        config = CoordinatorConfig.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: expected TOML, got: {error}.") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SettingsError(f"{file}: expected a coordinator's settings, got: {faults}.") from error
    return CoordinatorHome(path, config)
