"""`hipfed-server provision`, `enrol`, `revoke`, `hospitals` and `audit`: who may take part."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from rich.console import Console

from server.enrolment import coordinator_home
from server.enrolment.audit_log import parse_head, refuse_other_history
from server.enrolment.authority import SERVER_DAYS, check_server_certificate, open_authority
from server.enrolment.coordinator_home import CoordinatorHome, CoordinatorSettings
from server.enrolment.enrol import enrol as enrol_hospital
from server.enrolment.enrol import revoke as revoke_hospital
from server.enrolment.registry import Registry
from shared_model.errors import EnrolmentError, HipfedError, SettingsError
from shared_model.identity.enrolment_request import MAX_BYTES, parse_request
from shared_model.identity.fingerprint import certificate_fingerprint
from shared_model.pages.screen_table import print_table
from shared_model.process.command_refusal import plain_refusal
from shared_model.process.folder_lock import lock_holder
from shared_model.process.ports import is_listening
from shared_model.process.supervision import LOCK
from shared_model.process.toml_file import checked

Home = Annotated[Path, typer.Option("--home", file_okay=False, help="The coordinator's folder.")]
DEFAULT_HOME = Path("coordinator")
_PROGRAM = "hipfed-server"


def provision(
    *,
    home: Home = DEFAULT_HOME,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where hospitals reach the coordinator.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", metavar="HOST", help="A further name or IP address; repeat for more.")
    ] = None,
    organisation: Annotated[str, typer.Option(help="Who runs it; stands in the certificate.")] = "hipfed",
    superlink_port: Annotated[int, typer.Option(help="Of Flower's SuperLink, on this machine only.")] = 9442,
    days: Annotated[
        int, typer.Option(min=1, max=SERVER_DAYS, help="How long the server's certificate is valid.")
    ] = SERVER_DAYS,
    renew: Annotated[
        bool, typer.Option("--renew", help="Give the server a new certificate by the same CA; enrolments stay.")
    ] = False,
) -> None:
    """Make the coordinator's certificate authority, its server's certificate and an empty registry of hospitals."""
    now = datetime.now(UTC)
    with plain_refusal(_PROGRAM):
        place = CoordinatorHome(home.absolute())
        if renew:
            if address or name:
                raise SettingsError(
                    f"provision --renew: expected address and names in {place.settings_file}, got them as options. "
                    "Change them there, then renew without them."
                )
            certificate = coordinator_home.renew(place, now=now, days=days)
        else:
            if not address:
                raise SettingsError("provision: expected --address HOST:PORT, got none. Name it.")
            content = {
                "address": address,
                "organisation": organisation,
                "superlink_port": superlink_port,
                "names": name or [],
                **({"listen": "::"} if address.startswith("[") else {}),
            }
            settings = checked(content, CoordinatorSettings, source="provision")
            certificate = coordinator_home.provision(place, settings, now=now, days=days)
        authority = place.read_authority_certificate()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    typer.echo(
        f"The server's certificate is valid until {certificate.not_valid_after_utc:%Y-%m-%d}, for "
        f"{', '.join(str(one.value) for one in names)}."
    )
    if renew:
        typer.echo("Enrolments stay; hospitals need do nothing. Next: start the coordinator again.")
        return
    _say_what_is_next(home, authority)


def _say_what_is_next(home: Path, authority: x509.Certificate) -> None:
    typer.echo(
        f"{home} holds the authority's key: back it up, and let nobody read it.\n\n"
        f"fingerprint of ca.crt: {certificate_fingerprint(authority)}\n\nNext:\n"
        f"1. Send {home / 'ca/ca.crt'} to the hospitals. It holds no secret.\n"
        "2. Read its fingerprint out to each of them by telephone.\n"
        f"3. Enrol each hospital: hipfed-server enrol --home {home} request.json"
    )


def enrol(
    *,
    request: Annotated[Path, typer.Argument(metavar="request.json", help="What `hipfed-client keygen` made.")],
    home: Home = DEFAULT_HOME,
    fingerprint: Annotated[
        str | None, typer.Option(help="As the hospital read it out by telephone. [default: ask]")
    ] = None,
) -> None:
    """Check a hospital's request and let it take part."""
    now = datetime.now(UTC)
    with plain_refusal(_PROGRAM):
        place = CoordinatorHome(home.absolute())
        authority = open_authority(place.authority, now=now)
        with place.open_registry() as registry:
            asked = parse_request(_read(request), source=str(request))
            if fingerprint is None:
                typer.echo(f"{asked.name}, request of {asked.created}\nfingerprint: {asked.fingerprint}")
                if not typer.confirm("Did the hospital read out the same by telephone?"):
                    raise EnrolmentError(
                        f"request of {asked.name}: expected a fingerprint that was compared, got none. Call the "
                        "hospital, then try again."
                    )
            hospital = enrol_hospital(registry, asked, authority, now=now, fingerprint=fingerprint)
            typer.echo(f"{hospital.name} is enrolled.")
            _tell_flower(place, registry)


def revoke(
    *,
    name: Annotated[str, typer.Argument(help="The hospital's name.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """End one hospital's part at once. Its keys are never enrolled again; the other hospitals are not touched."""
    now = datetime.now(UTC)
    with plain_refusal(_PROGRAM):
        place = CoordinatorHome(home.absolute())
        authority = open_authority(place.authority, now=now)
        with place.open_registry() as registry:
            hospital = revoke_hospital(registry, name, reason, authority, now=now)
            typer.echo(f"{hospital.name} is revoked. To take part again, it has to make new keys and enrol with them.")
            _tell_flower(place, registry)


def hospitals(*, home: Home = DEFAULT_HOME) -> None:
    """List the hospitals that were ever enrolled."""
    with plain_refusal(_PROGRAM), CoordinatorHome(home.absolute()).open_registry() as registry:
        rows = registry.hospitals
    cells = [
        (row.name, "active" if row.is_active else "revoked", row.enrolled, row.revoked, row.reason) for row in rows
    ]
    console = Console()
    if cells:
        print_table(console, ("hospital", "status", "enrolled", "revoked", "reason"), cells)
    console.print(f"{sum(row.is_active for row in rows)} active of {len(rows)}", highlight=False)


def audit(
    *,
    home: Home = DEFAULT_HOME,
    noted: Annotated[
        str | None,
        typer.Option(metavar="NUMBER:HASH", help="A head that was noted elsewhere; the log must still hold it."),
    ] = None,
) -> None:
    """Verify the registry, print its log, and warn of certificates that expire. Exits with 1 if tampered with."""
    with plain_refusal(_PROGRAM):
        place = CoordinatorHome(home.absolute())
        with place.open_registry() as registry:
            entries = registry.entries
        if noted is not None:
            refuse_other_history(entries, parse_head(noted, source="--noted"), source="--noted")
    for entry in entries:
        subject = " ".join(entry.content[key] for key in ("name", "reason", "fingerprint") if key in entry.content)
        typer.echo(f"{entry.number:4d} {entry.time} {entry.content['by']}: {entry.event} {subject}".rstrip())
    typer.echo(
        f"The log is whole: {len(entries)} entries.\nhead, to be noted elsewhere: {len(entries)}:{entries[-1].hash}"
    )
    try:
        warnings = check_server_certificate(place.tls, place.read_authority_certificate(), now=datetime.now(UTC))
    except HipfedError as error:  # which is no tampering
        warnings = (str(error),)
    for warning in warnings:
        typer.echo(f"Warning: {warning}")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise EnrolmentError(f"{path}: expected an enrolment request, got: {error.strerror}. Name its file.") from error


def _tell_flower(home: CoordinatorHome, registry: Registry) -> None:
    """Bring Flower's list of nodes up to the registry, where this home's own SuperLink runs.

    Who else may listen at its port is not asked: of a copied home, it is the original's.
    """
    from server.flower.nodes import sync_nodes

    port = home.read_settings().superlink_port
    if lock_holder(home.processes, LOCK) is None or not is_listening(port, timeout_s=2.0):
        typer.echo("The SuperLink does not run; `hipfed-server start` tells it.")
        return
    sync_nodes(registry, address=f"127.0.0.1:{port}", certificate=home.read_authority_certificate())
    typer.echo("The SuperLink has been told.")
