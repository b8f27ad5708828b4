from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_model.errors import SettingsError
from shared_model.identity.address import parse_host, split_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("fed.example.org:9443", "fed.example.org", 9443),
        ("10.1.2.3:1", "10.1.2.3", 1),
        ("[2001:db8::1]:65535", "2001:db8::1", 65_535),
        ("localhost:80", "localhost", 80),
    ],
)
def test_address_has_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fed",
        "fed:",
        ":80",
        "fed:0",
        "fed:65536",
        "fed:\uff18\uff10",
        "fed:80:90",
        "2001:db8::1:80",
        "[fed]:80",
        "[]:80",
    ],
)
def test_address_is_refused_when_it_is_not_of_that_form(text: str) -> None:
    with pytest.raises(SettingsError, match="address: expected HOST:PORT such as"):
        split_address(text)


@pytest.mark.parametrize(
    "host", ["", "a b", "-a.org", "a..b", "bücher.example", "1.2.3", "999.1.1.1", "*.example.org", "a" * 64, "a\n"]
)
def test_host_is_refused_when_it_is_no_name(host: str) -> None:
    with pytest.raises(SettingsError, match="host: expected a DNS name in ASCII"):
        parse_host(host)


def test_host_is_an_address_or_a_name_in_small_letters() -> None:
    assert parse_host("::1") == ip_address("::1")
    assert parse_host("Fed.Example.org") == "fed.example.org"


@given(st.text())
def test_any_text_is_taken_or_refused_plainly(text: str) -> None:
    try:
        host, port = split_address(text)
    except SettingsError:
        return
    assert text in (f"{host}:{port}", f"[{host}]:{port}") or text.rpartition(":")[2].startswith("0")
