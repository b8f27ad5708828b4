"""`hipfed-client keygen` and `request`: a hospital's keys, and its request to take part."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from client.deployment.courier_place import courier_place, refuse_long_socket
from client.enrolment.keygen import make_hospital, renew_request
from client.home import HospitalHome, HospitalSettings
from shared_model.errors import SettingsError
from shared_model.identity.enrolment_request import EnrolmentRequest
from shared_model.process.command_refusal import plain_refusal
from shared_model.process.toml_file import checked

Home = Annotated[Path, typer.Option("--home", file_okay=False, help="The hospital's folder of keys and settings.")]
DEFAULT_HOME = Path("hospital")


def keygen(
    *,
    name: Annotated[str, typer.Option(help="How the hospital is called in every study.")],
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of the hospital's patients.")],
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the coordinator is reached.")],
    home: Home = DEFAULT_HOME,
    cache: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of decoded data. [default: HOME/cache]")
    ] = None,
) -> None:
    """Make this hospital's keys, settings and request to take part. Private keys never leave this machine."""
    from client.data import named_folder

    with plain_refusal("hipfed-client"):
        place, patients = HospitalHome(home.absolute()), named_folder(data)
        if _overlap(patients, place.folder) or _overlap(patients.resolve(), place.folder.resolve()):
            raise SettingsError(
                f"--home at {home}: expected a folder apart from the patients' {data}, got one within the other. "
                "Choose another."
            )
        refuse_long_socket(courier_place(place, courier_user=None).socket)
        content = {
            "name": name,
            "data": str(patients),
            "server": server,
            "cache": str(cache.resolve() if cache else place.folder / "cache"),
        }
        settings = checked(content, HospitalSettings, source="hipfed-client keygen")
        request = make_hospital(place, settings, now=datetime.now(UTC))
    typer.echo(f"Keys, settings and request of {settings.name} are in {home}. Keep keys/ to yourself, and back it up.")
    _say_next(home, request)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def request(*, home: Home = DEFAULT_HOME) -> None:
    """Make a fresh request with the same keys, where the former one has become too old."""
    with plain_refusal("hipfed-client"):
        fresh = renew_request(HospitalHome(home.absolute()), now=datetime.now(UTC))
    typer.echo(f"A fresh request of {fresh.name} is in {home}.")
    _say_next(home, fresh)


def _say_next(home: Path, fresh: EnrolmentRequest) -> None:
    typer.echo(
        f"\nfingerprint of the request: {fresh.fingerprint}\n\nNext:\n"
        f"1. Send {home / 'request.json'} to the coordinator. It holds no secret.\n"
        "2. Call the coordinator at a number that you know, and read this fingerprint out.\n"
        f"3. Put the coordinator's certificate at {home / 'ca.crt'}, and have its fingerprint read out to you:\n"
        f"   openssl x509 -noout -fingerprint -sha256 -in {home / 'ca.crt'}"
    )
