"""A hospital's home: the folder of its keys and settings, apart from its data. Only its owner may enter it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from shared_model.identity.address import Address
from shared_model.identity.enrolment_request import checked_name
from shared_model.identity.key_files import refuse_changeable_folder
from shared_model.process.toml_file import read_toml


def _checked_folder(folder: str) -> str:
    if not Path(folder).is_absolute():
        raise ValueError("expected a folder's whole path, from / on")
    return folder


class HospitalSettings(BaseModel):
    """hospital.toml.

    Attributes:
        name: how the hospital is called in every study.
        data: folder of its patients (the data contract), the whole path.
        server: HOST:PORT of the coordinator.
        cache: folder of decoded data and of the hospital's own state, the whole path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(checked_name)]
    data: Annotated[str, AfterValidator(_checked_folder)]
    server: Address
    cache: Annotated[str, AfterValidator(_checked_folder)]


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
        """The node's private key, in OpenSSH's format; its public half ends in `.pub`."""
        return self.folder / "keys" / "node"

    @property
    def signing_key(self) -> Path:
        """The worker's private key, in OpenSSH's format; its public half ends in `.pub`."""
        return self.folder / "keys" / "signing"

    @property
    def request(self) -> Path:
        """The request to the coordinator."""
        return self.folder / "request.json"

    @property
    def authority(self) -> Path:
        """The coordinator's CA certificate, put here by hand."""
        return self.folder / "ca.crt"

    def read_settings(self) -> HospitalSettings:
        """What hospital.toml says.

        Raises:
            KeyFileError: somebody else may change what is in the home.
            SettingsError: the file is missing or wrong.
        """
        settings = read_toml(
            self.settings_file, HospitalSettings, remedy="Name the right --home, or run `hipfed-client keygen` first."
        )
        refuse_changeable_folder(self.folder)
        return settings
