"""Ports of this machine."""

from __future__ import annotations

import socket

from shared_model.ports import free_ports, is_listening


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
