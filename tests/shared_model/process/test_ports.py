"""Ports of this machine."""

import socket

import pytest

from shared_model.process.ports import free_ports, is_listening, is_taken


def testfree_ports_differ_and_can_be_taken() -> None:
    ports = free_ports(4)

    assert len(set(ports)) == 4
    for port in ports:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))


def test_port_listens_while_somebody_accepts_there() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert not is_listening(port)
        server.listen()
        assert is_listening(port)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_port_is_taken_while_somebody_listens_there(family: socket.AddressFamily, host: str) -> None:
    everywhere = "::" if family == socket.AF_INET6 else ""
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        assert is_taken(host, port)
        assert is_taken(everywhere, port)

    assert not is_taken(host, port)


def test_address_of_another_machine_is_not_told_as_taken() -> None:
    assert not is_taken("192.0.2.1", 9443)
