"""Flower's SuperNode, with an end, with a word where a question may have been lost, and with pieces that go once.

Flower's own command stays, connected to nobody, where its loop was left by an exception (such as a connection that a
proxy cuts within the TLS handshake), because the thread that serves the ClientApp goes on (flwr 1.41). The interpreter
is given this file as text: a separated process may not read the project's folder.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

import httpx
from flwr.supernode.cli import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

if TYPE_CHECKING:
    from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
    from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse

LOST = "A question may have been lost with a connection that broke"
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def tell_lost_questions() -> None:
    """Say so where the connection broke while a question was asked for, and none comes once there is one again.

    The SuperLink hands a question out once: one that was on its way would be waited for until the deadline, while this
    side, which has never heard of it, asks for the next. A SuperNode that has a question in hand asks for none.
    """
    pull = FleetHttpClient.PullMessages
    broke = False

    def watched(client: FleetHttpClient, request: PullMessagesRequest) -> PullMessagesResponse:
        nonlocal broke
        try:
            response = pull(client, request)
        except httpx.TransportError as error:
            broke = broke or not isinstance(error, _NOTHING_SENT)
            raise
        if broke and not response.messages_list:
            sys.stdout.write(f"{LOST}\n")
            sys.stdout.flush()
        broke = False
        return response

    FleetHttpClient.PullMessages = watched  # type: ignore[method-assign,assignment]


def take_stored_pieces() -> None:
    """Take a piece of an answer as stored where that was told over a connection that broke.

    The SuperLink takes each piece once and says of the second try that it is not stored (flwr 1.41), for which Flower
    would give the whole answer up. Where it is indeed not, as after a long break, the coordinator hears of that when
    the answer's session has expired, and asks again.
    """
    push = FleetHttpClient.PushObject
    in_doubt: set[tuple[str, str]] = set()

    def watched(client: FleetHttpClient, request: PushObjectRequest) -> PushObjectResponse:
        piece = (request.session_id, request.object_id)
        try:
            response = push(client, request)
        except httpx.HTTPError as error:
            if not isinstance(error, _NOTHING_SENT):
                in_doubt.add(piece)
            raise
        if piece in in_doubt:
            in_doubt.discard(piece)
            response.stored = True
        return response

    FleetHttpClient.PushObject = watched  # type: ignore[method-assign,assignment]


def main() -> None:
    """Run Flower's command with this process's options; the process ends with it, whatever threads are left."""
    tell_lost_questions()
    take_stored_pieces()
    try:
        flower_supernode()
    except Exception:  # noqa: BLE001 - shown, and the process ends
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
