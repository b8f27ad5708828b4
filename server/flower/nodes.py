"""Flower's list of nodes, made equal to the registry's active hospitals.

Why over Flower's own Control API and not its `flwr supernode` commands: those list neither the key nor the name of a
node, so after a crash nobody could say which hospital a node is. By its key, each is known, and nothing has to be
remembered.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError

from server.enrolment.registry import Registry
from shared_model.errors import EnrolmentError

_UNREGISTERED = "unregistered"  # Flower keeps such nodes in its list, and never takes their keys again


@dataclass(frozen=True)
class NodeChanges:
    """What `sync_nodes` did.

    Attributes:
        registered: names of the hospitals whose node Flower did not know.
        unregistered: how many nodes Flower knew that no active hospital has.
    """

    registered: tuple[str, ...]
    unregistered: int


def sync_nodes(registry: Registry, *, address: str, certificate: x509.Certificate) -> NodeChanges:
    """Register the nodes of active hospitals with a running SuperLink, and unregister all others.

    Doing it again, or from two commands at once, does no harm.

    Args:
        registry: the hospitals.
        address: HOST:PORT of the SuperLink's Control API, on this machine.
        certificate: the authority's.

    Raises:
        EnrolmentError: the SuperLink cannot be reached, or refuses; or it unregistered an active hospital's node
            before, and so never takes its key again.
    """
    with _plain_errors(address), closing(_open_client(address, certificate)) as client:
        active = {hospital.node_key_pem: hospital.name for hospital in registry.active_hospitals()}
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
        known = {node.public_key: node.node_id for node in nodes if node.status != _UNREGISTERED}
        lost = {node.public_key for node in nodes if node.status == _UNREGISTERED} & active.keys()
        old, new = known.keys() - active.keys(), [key for key in active if key not in known and key not in lost]
        for key in old:
            with _allow(ApiErrorCode.NODE_NOT_FOUND):
                client.UnregisterNode(UnregisterNodeRequest(node_id=known[key]))
        for key in new:
            with _allow(ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE):
                client.RegisterNode(RegisterNodeRequest(public_key=key, name=active[key]))
    if lost:
        raise EnrolmentError(
            f"Flower's nodes at {address}: expected to register {', '.join(sorted(active[key] for key in lost))}, got "
            "keys that were unregistered there before, which Flower never takes again. Revoke these hospitals and "
            "enrol them with new keys."
        )
    return NodeChanges(tuple(active[key] for key in new), len(old))


def enrolled_nodes(registry: Registry, *, address: str, certificate: x509.Certificate) -> dict[int, str]:
    """Active hospitals' names by Flower's node id, told apart by their keys.

    Args:
        registry: the hospitals.
        address: HOST:PORT of the SuperLink's Control API, on this machine.
        certificate: the authority's.

    Raises:
        EnrolmentError: the SuperLink cannot be reached, or refuses.
    """
    with _plain_errors(address), closing(_open_client(address, certificate)) as client:
        active = {hospital.node_key_pem: hospital.name for hospital in registry.active_hospitals()}
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return {
        node.node_id: active[node.public_key]
        for node in nodes
        if node.status != _UNREGISTERED and node.public_key in active
    }


def _open_client(address: str, certificate: x509.Certificate) -> ControlHttpClient:
    return ControlHttpClient.from_server_address(
        address, insecure=False, root_certificates=certificate.public_bytes(Encoding.PEM), interceptors=[]
    )


@contextmanager
def _allow(code: ApiErrorCode) -> Iterator[None]:
    """Go on where another command has just done the same."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        answer = FlowerError.from_json(error.response.text)
        if answer is None or answer.code != code:
            raise


@contextmanager
def _plain_errors(address: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise EnrolmentError(
            f"SuperLink at {address}: expected it to change its nodes, got: {error.response.text[:200]}. See its log."
        ) from error
    except httpx.HTTPError as error:
        raise EnrolmentError(
            f"SuperLink at {address}: expected an answer, got: {error}. Is it running (`hipfed-server status`)?"
        ) from error
