"""Against a real SuperLink, with TLS and node authentication, on loopback."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.supercore.control import ControlHttpClient

from server.enrolment.authority import Authority, issue_server_certificate, make_authority
from server.enrolment.registry import Registry
from server.flower.nodes import NodeChanges, enrolled_nodes, sync_nodes
from shared_model.errors import EnrolmentError
from tests.server.enrolment.requests_of_hospitals import NOW, ask
from tests.waiting import PATIENCE_S, wait_until


@dataclass(frozen=True)
class SuperLink:
    address: str
    certificate: x509.Certificate

    def client(self) -> ControlHttpClient:
        pem = self.certificate.public_bytes(Encoding.PEM)
        return ControlHttpClient.from_server_address(
            self.address, insecure=False, root_certificates=pem, interceptors=[]
        )

    def nodes(self) -> dict[str, str]:
        """Status of every node by its name."""
        with closing(self.client()) as client:
            return {node.name: node.status for node in client.ListNodes(ListNodesRequest()).nodes_info}


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    now = datetime.now(UTC)
    folder = tmp_path_factory.mktemp("superlink")
    made = make_authority(folder / "ca", organisation="North trust", now=now)
    issue_server_certificate(folder / "tls", made, [], now=now)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "FLWR_HOME": str(folder / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    command: list[str | Path] = [
        programs / "flower-superlink",
        "--ssl-ca-certfile",
        folder / "ca/ca.crt",
        "--enable-supernode-auth",
    ]
    command += ["--ssl-certfile", folder / "tls/server.crt", "--ssl-keyfile", folder / "tls/server.key"]
    command += ["--disable-runtime-dependency-installation", "--database", folder / "state.db"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    link = SuperLink(f"127.0.0.1:{port}", made.certificate)
    try:
        wait_until(lambda: process.poll() is not None or _answers(link), poll_s=0.1)
        assert process.poll() is None, f"the SuperLink did not start: {(folder / 'log').read_text()}"
        yield link
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in family:
            one.kill()
        process.wait()
        psutil.wait_procs(family, timeout=PATIENCE_S)


def _answers(link: SuperLink) -> bool:
    try:
        link.nodes()
    except httpx.HTTPError:
        return False
    return True


def test_flowers_nodes_follow_the_registry(superlink: SuperLink, registry: Registry, authority: Authority) -> None:
    def sync() -> NodeChanges:
        return sync_nodes(registry, address=superlink.address, certificate=superlink.certificate)

    for name in ("east", "west"):
        registry.admit(ask(name), authority, now=NOW)
    assert sync() == NodeChanges(registered=("east", "west"), unregistered=0)
    assert superlink.nodes() == {"east": "registered", "west": "registered"}
    assert sync() == NodeChanges(registered=(), unregistered=0)
    named = enrolled_nodes(registry, address=superlink.address, certificate=superlink.certificate)
    assert sorted(named.values()) == ["east", "west"]

    registry.revoke("west", "left", authority, now=NOW)
    assert sync() == NodeChanges(registered=(), unregistered=1)
    assert superlink.nodes() == {"east": "registered", "west": "unregistered"}

    _register_by_hand(superlink, "intruder")
    assert sync() == NodeChanges(registered=(), unregistered=1)
    assert superlink.nodes()["intruder"] == "unregistered"

    _unregister_by_hand(superlink, "east")
    registry.admit(ask("north"), authority, now=NOW)
    with pytest.raises(
        EnrolmentError, match=r"expected to register east, got keys that were unregistered there before"
    ):
        sync()
    assert superlink.nodes()["north"] == "registered"


def test_superlink_of_another_authority_is_refused(
    superlink: SuperLink, registry: Registry, authority: Authority
) -> None:
    registry.admit(ask("east"), authority, now=NOW)

    with pytest.raises(EnrolmentError, match=r"SuperLink at .*: expected an answer, got: .*CERTIFICATE_VERIFY_FAILED"):
        sync_nodes(registry, address=superlink.address, certificate=authority.certificate)


def test_superlink_that_does_not_run_is_named(registry: Registry, authority: Authority) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

        with pytest.raises(EnrolmentError, match=rf"SuperLink at {address}: expected an answer, got: .*refused"):
            sync_nodes(registry, address=address, certificate=authority.certificate)


def _register_by_hand(link: SuperLink, name: str) -> None:
    key = ask(name).node_public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with closing(link.client()) as client:
        client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))


def _unregister_by_hand(link: SuperLink, name: str) -> None:
    with closing(link.client()) as client:
        (node,) = (one for one in client.ListNodes(ListNodesRequest()).nodes_info if one.name == name)
        client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
