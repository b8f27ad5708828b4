"""The coordinator's address: a host and a port."""

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator

from shared_model.errors import SettingsError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

HOST_RULE = "a DNS name in ASCII (xn-- for others) or an IP address"
ADDRESS_RULE = "HOST:PORT such as fed.example.org:9443 or [2001:db8::1]:9443"

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\Z")


def parse_host(host: str) -> IPAddress | str:
    """An IP address, or a DNS name in small letters.

    Raises:
        SettingsError: it is neither.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        name = host.casefold()
        if not _HOST_NAME.match(name) or name.rpartition(".")[2].isdigit():
            raise SettingsError(f"host: expected {HOST_RULE}, got {host!r}.") from None
        return name


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPv6]:PORT`.

    >>> split_address("[2001:db8::1]:9443")
    ('2001:db8::1', 9443)

    Raises:
        SettingsError: it is not of this form.
    """
    host, _, port = address.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if in_brackets else host
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535
    if not bare or not is_port or (":" in bare) != in_brackets:
        raise SettingsError(f"address: expected {ADDRESS_RULE}, got {address!r}.")
    parse_host(bare)
    return bare, int(port)


def _is_host(host: str) -> str:
    try:
        parse_host(host)
    except SettingsError as error:
        raise ValueError(f"expected {HOST_RULE}") from error
    return host


def _is_address(address: str) -> str:
    try:
        split_address(address)
    except SettingsError as error:
        raise ValueError(f"expected {ADDRESS_RULE}") from error
    return address


Host = Annotated[str, AfterValidator(_is_host)]
"""Text that `parse_host` takes, as a field of a pydantic model."""

Address = Annotated[str, AfterValidator(_is_address)]
"""Text that `split_address` takes, as a field of a pydantic model."""
