"""The hospital's own files: settings, keys, the coordinator's certificate, patients and schema."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.data.hospital import find_schema, is_hospital, read_hospital
from client.deployment.supervise import processes_of
from client.doctor.finding import CheckResult
from client.home import HospitalHome
from shared_model.errors import DataError, HipfedError
from shared_model.identity.enrolment_request import openssh_text
from shared_model.identity.fingerprint import certificate_fingerprint
from shared_model.identity.key_files import read_node_key, read_signing_key
from shared_model.process.supervision import read_status
from shared_model.schema import load_schema

SOON = timedelta(days=30)


def check_keys(home: HospitalHome) -> CheckResult:
    """Check that both private keys are there, closed to others, and fit their public halves."""
    try:
        keys: dict[Path, EllipticCurvePrivateKey | Ed25519PrivateKey] = {
            home.node_key: read_node_key(home.node_key),
            home.signing_key: read_signing_key(home.signing_key),
        }
        for path, key in keys.items():
            public = path.with_suffix(".pub")
            if public.read_text(encoding="ascii").split() != openssh_text(key.public_key()).split():
                return CheckResult("keys", "fault", f"{public} is not the public half of {path}", "Restore the backup.")
    except HipfedError as error:
        return CheckResult("keys", "fault", str(error))
    except (OSError, UnicodeDecodeError) as error:
        return CheckResult("keys", "fault", f"a public key cannot be read: {error}", "Restore it from the backup.")
    return CheckResult("keys", "fine", f"{home.folder / 'keys'}, closed to others")


def check_certificate(home: HospitalHome, *, now: datetime) -> CheckResult:
    """Check that the coordinator's CA certificate is there and valid."""
    subject, path = "ca.crt", home.authority
    remedy = "Ask the coordinator for ca.crt, and compare its fingerprint by telephone."
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except OSError as error:
        return CheckResult(subject, "fault", f"{path}: {error.strerror}", remedy)
    except (ValueError, x509.ExtensionNotFound):
        return CheckResult(subject, "fault", f"{path} is no certificate of an authority", remedy)
    if not constraints.ca:
        return CheckResult(subject, "fault", f"{path} is a certificate, but not that of an authority", remedy)
    end = certificate.not_valid_after_utc
    if not certificate.not_valid_before_utc <= now <= end:
        valid = f"valid from {certificate.not_valid_before_utc:%Y-%m-%d} to {end:%Y-%m-%d}; today is {now:%Y-%m-%d}"
        return CheckResult(subject, "fault", valid, "Set this machine's clock if it is wrong; else: " + remedy)
    detail = f"valid until {end:%Y-%m-%d}, fingerprint {certificate_fingerprint(certificate)}"
    if end - now < SOON:
        return CheckResult(subject, "warning", detail, "The coordinator has to make a new authority soon.")
    return CheckResult(subject, "fine", detail)


def check_data(folder: Path) -> CheckResult:
    """Check that the data folder is there, holds patients, fits the study but for images, and is closed to others."""
    subject = "data folder"
    if not folder.is_dir():
        return CheckResult(subject, "fault", f"{folder}: no such folder", "Mount it, or mend `data` in hospital.toml.")
    try:
        found = is_hospital(folder)
        mode = stat.S_IMODE(folder.stat().st_mode)
        broken = _broken_tables(folder) if found else ""
    except OSError as error:
        return CheckResult(subject, "fault", f"{folder}: {error.strerror}", "Let the worker's user read it.")
    if not found:
        return CheckResult(subject, "fault", f"{folder} holds no patients.csv or .parquet", "See the data contract.")
    if broken:
        return CheckResult(subject, "fault", broken, f"`hipfed-client check {folder}` says what is wrong, and where.")
    if mode & (stat.S_IRWXO):
        remedy = f"Close it to users who need not read it: chmod o-rwx {folder}"
        return CheckResult(subject, "warning", f"{folder} is open to every user (mode {mode:04o})", remedy)
    return CheckResult(subject, "fine", f"{folder}; `hipfed-client check {folder}` reads all of it")


def _broken_tables(folder: Path) -> str:
    """What keeps the worker from the tables, rules and counts only; "" if nothing does, or the schema is at fault."""
    try:
        schema = load_schema(find_schema(folder))
    except HipfedError:
        return ""
    try:
        read_hospital(folder, schema.model_copy(update={"images": {}}))  # images take long: the worker reads them
    except DataError as error:
        return error.public_reason
    return ""


def check_worker(home: HospitalHome) -> list[CheckResult]:
    """What keeps a running worker from its work; nothing where nothing does, or none runs."""
    status = read_status(processes_of(home))
    parts = () if status is None else status.parts
    return [CheckResult("worker", "fault", part.reason) for part in parts if part.name == "worker" and part.reason]


def check_schema(folder: Path) -> CheckResult:
    """Check that the study's schema is there and valid."""
    try:
        schema = load_schema(find_schema(folder))
    except HipfedError as error:
        return CheckResult("schema", "fault", str(error))
    return CheckResult("schema", "fine", f"{schema.study.name}, hash {schema.sha256[:12]}")


def now_utc() -> datetime:
    """This machine's clock."""
    return datetime.now(UTC)
