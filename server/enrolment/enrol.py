"""Taking a hospital in, and ending its part."""

from datetime import datetime, timedelta

from server.enrolment.authority import Authority
from server.enrolment.hospitals import EnrolledHospital
from server.enrolment.registry import Registry
from shared_model.errors import EnrolmentError
from shared_model.identity.enrolment_request import EnrolmentRequest
from shared_model.identity.fingerprint import same_fingerprint

MAX_AGE = timedelta(days=30)
MAX_LEAD = timedelta(hours=1)  # of a hospital's clock
MAX_REASON = 500


def enrol(
    registry: Registry,
    request: EnrolmentRequest,
    authority: Authority,
    *,
    now: datetime,
    fingerprint: str | None = None,
) -> EnrolledHospital:
    """Register a hospital, from a request whose signatures were checked when it was parsed.

    Args:
        registry: where to.
        request: the hospital's.
        authority: signs the audit log.
        now: this moment.
        fingerprint: as the hospital read it out; None where it was not compared.

    Returns:
        The hospital as registered.

    Raises:
        EnrolmentError: the request is too old, from the future, of another fingerprint, used before, or its name or a
            key is taken or was revoked.
        TamperedError: the registry was changed by hand.
    """
    if fingerprint is not None and not same_fingerprint(fingerprint, request.fingerprint):
        raise EnrolmentError(
            f"request of {request.name}: expected the fingerprint that was read out, {fingerprint}, got "
            f"{request.fingerprint}. Compare again; if they still differ, this is not the hospital's request."
        )
    age = now - request.created_at
    if age > MAX_AGE:
        raise EnrolmentError(
            f"request of {request.name}: expected one of the last {MAX_AGE.days} days, got one of {request.created}. "
            "Ask the hospital for a new one (`hipfed-client request`)."
        )
    if age < -MAX_LEAD:
        raise EnrolmentError(
            f"request of {request.name}: expected one of the past, got one of {request.created}. Set the clocks, then "
            "ask the hospital for a new one (`hipfed-client request`)."
        )
    return registry.admit(request, authority, now=now)


def revoke(registry: Registry, name: str, reason: str, authority: Authority, *, now: datetime) -> EnrolledHospital:
    """End one hospital's part. Its keys are never enrolled again; the others are not touched.

    Args:
        registry: where it is.
        name: the hospital's, in capitals or not.
        reason: for the audit log.
        authority: signs the audit log.
        now: this moment.

    Returns:
        The hospital as it now stands.

    Raises:
        EnrolmentError: no active hospital is called so, or there is no reason.
        TamperedError: the registry was changed by hand.
    """
    text = reason.strip()
    if not text or len(text) > MAX_REASON or not text.isprintable():
        raise EnrolmentError(f"--reason: expected one line of 1 to {MAX_REASON} characters, got {reason[:80]!r}.")
    return registry.revoke(name, text, authority, now=now)
