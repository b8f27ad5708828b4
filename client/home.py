"""A hospital's home: the folder of its keys and settings, apart from its data."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from shared_model.errors import SettingsError


class HospitalSettings(BaseModel):
    """hospital.toml.

    Attributes:
        name: how the hospital is called in every study.
        data: folder of its patients, the whole path.
        server: HOST:PORT of the coordinator.
        cache: folder of decoded data and of the hospital's own state, the whole path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    data: str
    server: str
    cache: str


@dataclass(frozen=True)
class HospitalHome:
    """Where everything lies in a hospital's home.

    Attributes:
        folder: the home.
    """

    folder: Path

    @property
    def settings_file(self) -> Path:
        """hospital.toml."""
        return self.folder / "hospital.toml"

    @property
    def node_key(self) -> Path:
        """The node's private key, in OpenSSH's format."""
        return self.folder / "keys" / "node"

    @property
    def authority(self) -> Path:
        """The coordinator's CA certificate, put here by hand."""
        return self.folder / "ca.crt"

    def read_settings(self) -> HospitalSettings:
        """What hospital.toml says.

        Raises:
            SettingsError: the file is missing or wrong.
        """
        try:
            return HospitalSettings.model_validate(tomllib.loads(self.settings_file.read_text(encoding="utf-8")))
        except OSError as error:
            raise SettingsError(
                f"{self.settings_file}: expected a hospital's settings, got: {error.strerror}. "
                "Name the right --home, or run `hipfed-client keygen` first."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
            raise SettingsError(f"{self.settings_file}: expected a hospital's settings, got: {error}.") from error
