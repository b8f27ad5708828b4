import stat
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from server.enrolment.authority import (
    Authority,
    check_server_certificate,
    issue_server_certificate,
    make_authority,
    open_authority,
    read_certificate,
    verify_signature,
)
from shared_model.errors import EnrolmentError, KeyFileError, SettingsError
from shared_model.identity.fingerprint import certificate_fingerprint
from tests.server.enrolment.requests_of_hospitals import NOW


def days(n: float) -> timedelta:
    return timedelta(days=n)


def test_authority_may_sign_certificates_and_no_further_authority(authority: Authority) -> None:
    extensions = authority.certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)

    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.key_agreement


def test_authority_is_valid_for_ten_years_on_the_nist_curve(authority: Authority) -> None:
    key = authority.certificate.public_key()

    assert isinstance(key, EllipticCurvePublicKey)
    assert isinstance(key.curve, SECP256R1)
    assert authority.certificate.not_valid_after_utc == NOW + days(3652)


def test_key_of_the_authority_is_the_owners_alone(ca: Path) -> None:
    assert stat.S_IMODE((ca / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(ca.stat().st_mode) == 0o700


def test_authority_is_never_overwritten(tmp_path: Path) -> None:
    made = make_authority(tmp_path / "ca", organisation="x", now=NOW)

    with pytest.raises(KeyFileError, match=r"ca\.key: expected no such file, got one that exists"):
        make_authority(tmp_path / "ca", organisation="x", now=NOW)

    assert open_authority(tmp_path / "ca", now=NOW).certificate == made.certificate


def test_authority_is_refused_when_certificate_and_key_do_not_fit(tmp_path: Path) -> None:
    make_authority(tmp_path / "one", organisation="x", now=NOW)
    make_authority(tmp_path / "two", organisation="x", now=NOW)
    (tmp_path / "two" / "ca.key").replace(tmp_path / "one" / "ca.key")

    with pytest.raises(EnrolmentError, match=r"one: expected ca\.crt and ca\.key of one authority, got two"):
        open_authority(tmp_path / "one", now=NOW)


def test_authority_is_refused_when_others_may_read_its_key(tmp_path: Path) -> None:
    make_authority(tmp_path, organisation="x", now=NOW)
    (tmp_path / "ca.key").chmod(0o640)

    with pytest.raises(KeyFileError, match=r"ca\.key: expected mode 0600, got 0640"):
        open_authority(tmp_path, now=NOW)


@pytest.mark.parametrize(("moment", "said"), [(3653, "ended 2036-02-29"), (-2, "begins 2026-02-28, after this mach")])
def test_authority_is_refused_outside_its_time(ca: Path, moment: int, said: str) -> None:
    with pytest.raises(EnrolmentError, match=rf"ca\.crt: expected a certificate that is valid, got one that {said}"):
        open_authority(ca, now=NOW + days(moment))


def test_only_its_own_signature_is_right(authority: Authority, tmp_path: Path) -> None:
    other = make_authority(tmp_path, organisation="x", now=NOW)

    assert verify_signature(authority.certificate, b"entry", authority.sign(b"entry"))
    assert not verify_signature(authority.certificate, b"other", authority.sign(b"entry"))
    assert not verify_signature(authority.certificate, b"entry", other.sign(b"entry"))
    assert not verify_signature(authority.certificate, b"entry", b"")


def test_server_certificate_names_all_hosts_and_the_machine_itself(tmp_path: Path, authority: Authority) -> None:
    certificate = issue_server_certificate(tmp_path, authority, ["Fed.example.org", "10.1.2.3", "::1"], now=NOW)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.DNSName) == ["fed.example.org", "localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address(one) for one in ("10.1.2.3", "::1", "127.0.0.1")]


def test_server_certificate_serves_servers_only(tmp_path: Path, authority: Authority) -> None:
    extensions = issue_server_certificate(tmp_path, authority, [], now=NOW).extensions

    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert stat.S_IMODE((tmp_path / "server.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(("asked", "left"), [(1, 1), (100, 100), (825, 824)])
def test_server_certificate_is_never_valid_for_more_than_825_days(
    tmp_path: Path, authority: Authority, asked: int, left: int
) -> None:
    certificate = issue_server_certificate(tmp_path, authority, [], now=NOW + days(9), days=asked)

    assert certificate.not_valid_after_utc == NOW + days(9 + left)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= days(825)


def test_server_certificate_ends_with_its_authority(tmp_path: Path, authority: Authority) -> None:
    certificate = issue_server_certificate(tmp_path, authority, [], now=NOW + days(3600))

    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


@pytest.mark.parametrize("asked", [0, -1, 826])
def test_server_certificate_is_refused_for_another_time(tmp_path: Path, authority: Authority, asked: int) -> None:
    with pytest.raises(EnrolmentError, match=rf"--days: expected 1 to 825, got {asked}"):
        issue_server_certificate(tmp_path, authority, [], now=NOW, days=asked)


def test_server_certificate_is_refused_for_what_is_no_host(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(SettingsError, match="host: expected a DNS name in ASCII"):
        issue_server_certificate(tmp_path, authority, ["*.example.org"], now=NOW)

    assert list(tmp_path.iterdir()) == []


def test_good_certificate_is_checked_without_a_warning(tmp_path: Path, authority: Authority) -> None:
    issue_server_certificate(tmp_path, authority, [], now=NOW)

    assert check_server_certificate(tmp_path, authority.certificate, now=NOW) == ()


def test_certificate_that_will_expire_is_warned_of(tmp_path: Path, authority: Authority) -> None:
    issue_server_certificate(tmp_path, authority, [], now=NOW, days=90)

    assert check_server_certificate(tmp_path, authority.certificate, now=NOW + days(59)) == ()
    assert check_server_certificate(tmp_path, authority.certificate, now=NOW + days(61.5)) == (
        "the server's certificate expires in 28 days, on 2026-05-30. Run `provision --renew`.",
    )


def test_authority_that_will_expire_is_warned_of(tmp_path: Path, authority: Authority) -> None:
    issue_server_certificate(tmp_path, authority, [], now=NOW + days(3640))

    warnings = check_server_certificate(tmp_path, authority.certificate, now=NOW + days(3640))

    assert [warning.partition(",")[0] for warning in warnings] == [
        "the server's certificate expires in 12 days",
        "the authority expires in 12 days",
    ]


def test_expired_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    issue_server_certificate(tmp_path, authority, [], now=NOW, days=90)

    with pytest.raises(
        EnrolmentError, match=r"server\.crt: .* got one that ended 2026-05-30\. Run `provision --renew`\."
    ):
        check_server_certificate(tmp_path, authority.certificate, now=NOW + days(91))


def test_certificate_of_another_authority_is_refused(tmp_path: Path, authority: Authority) -> None:
    other = make_authority(tmp_path / "ca", organisation="North trust", now=NOW)  # of the same name
    issue_server_certificate(tmp_path / "tls", other, [], now=NOW)

    with pytest.raises(
        EnrolmentError, match=r"server\.crt: expected a certificate of this coordinator's own authority"
    ):
        check_server_certificate(tmp_path / "tls", authority.certificate, now=NOW)


def test_renewal_that_was_interrupted_is_refused_and_mended_by_another(tmp_path: Path, authority: Authority) -> None:
    issue_server_certificate(tmp_path / "new", authority, [], now=NOW)
    issue_server_certificate(tmp_path / "tls", authority, [], now=NOW)
    (tmp_path / "new" / "server.key").replace(tmp_path / "tls" / "server.key")  # the key is written first

    with pytest.raises(EnrolmentError, match=r"tls: expected server\.crt and server\.key of one renewal, got two"):
        check_server_certificate(tmp_path / "tls", authority.certificate, now=NOW)

    issue_server_certificate(tmp_path / "tls", authority, [], now=NOW)
    assert check_server_certificate(tmp_path / "tls", authority.certificate, now=NOW) == ()


def test_missing_and_damaged_certificates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EnrolmentError, match=r"ca\.crt: expected a certificate, got: No such file or directory\. Name"):
        read_certificate(tmp_path / "ca.crt")
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(EnrolmentError, match=r"ca\.crt: expected a certificate in PEM, got something else"):
        read_certificate(tmp_path / "ca.crt")


def test_fingerprint_is_written_as_openssl_writes_it(authority: Authority) -> None:
    groups = certificate_fingerprint(authority.certificate).split(":")

    assert len(groups) == 32
    assert all(len(group) == 2 and group == group.upper() for group in groups)
