"""Flower's SuperNode, with an end, with couriers that start at once, with a word where a question may have been lost.

Flower's own command stays, connected to nobody, where its loop was left by an exception (such as a connection that a
proxy cuts within the TLS handshake), because the thread that serves the ClientApp goes on (flwr 1.41). It starts a new
interpreter for each question, which a busy machine takes longer to do than the question's token is valid, and shows the
token on its command line. Here a courier is a copy (fork) of a process that has imported all it needs, and there is one
at a time. The interpreter is given this file as text: a separated process may not read the project's folder.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import ssl
import sys
import threading
import traceback
from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
from flwr.supernode.cli import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

if TYPE_CHECKING:
    from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
    from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
    from flwr.supercore.constant import TaskType
    from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult

LOST = "A question may have been lost with a connection that broke"
FLOWER = "1.41.0"  # what is changed here are parts that Flower does not promise to keep
COURIER, LAUNCHER = "hipfed-courier", "hipfed-launch"  # names of the processes
LEASE_S, SILENCE_S = 90, 60  # within which a courier says its first word, and the next one
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_OF_COURIERS = ("flwr.supernode.runtime.run_clientapp", "flwr.clientapp", "pydantic")  # imported once for all
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


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


class OneCourier:
    """Flower's executor for couriers: copies of this process, of which there is never more than one.

    Args:
        address: HOST:PORT at which the SuperNode hands out questions.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._courier: int | None = None

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_options: object
    ) -> tuple[set[TaskType], set[str]]:
        """No question is taken on while a courier is at work."""
        return (supported_task_types if self._courier is None else set()), set()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start a courier; its token is in no command line, environment or file."""
        from flwr.supercore.superexec.executor import LaunchResult  # noqa: PLC0415 - the launcher's alone

        sys.stdout.flush()
        sys.stderr.flush()
        self._courier = os.fork()
        if self._courier == 0:
            _be_courier(self._address, spec.token)
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Notice the courier's end."""
        if self._courier is not None and os.waitpid(self._courier, os.WNOHANG)[0]:
            self._courier = None

    def close(self) -> None:
        """Nothing is held."""


def _be_courier(address: str, token: str) -> NoReturn:
    """Run Flower's ClientApp in this copy, which goes on as nothing else."""
    from flwr.supercore.exit import exit_handler  # noqa: PLC0415
    from flwr.supernode.runtime.run_clientapp import run_clientapp  # noqa: PLC0415

    status: object = 1
    try:
        _name_process(COURIER)
        exit_handler.registered_exit_handlers.clear()  # the launcher's: they close its connection
        run_clientapp(address, token, insecure=True, parent_pid=os.getppid())
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - shown, and the process ends
        traceback.print_exc()
    _end(status)


def start_launcher(address: str) -> int:
    """Start the process that couriers are copies of, before this one has read a key or begun a thread; its id."""
    supernode, launcher = os.getpid(), os.fork()
    if launcher == 0:
        _be_launcher(address, supernode=supernode)
    return launcher


def _be_launcher(address: str, *, supernode: int) -> NoReturn:
    """Import what couriers need, and start one for each question."""
    status: object = 1
    try:
        _name_process(LAUNCHER)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != supernode:
            _end(1)
        for name in _OF_COURIERS:
            import_module(name)
        flower: Any = import_module("flwr.supercore.superexec.run_superexec")
        flower.get_executor = lambda *_given, **_options: OneCourier(address)
        flower.run_superexec(address, insecure=True)
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - shown, and the process ends
        traceback.print_exc()
    _end(status)


def lend_longer() -> None:
    """Let the SuperNode wait longer for a courier's first word: 30 s is short on a machine with much else to do."""
    from flwr.supercore.corestate import in_memory_corestate  # noqa: PLC0415 - as above

    in_memory_corestate.HEARTBEAT_DEFAULT_INTERVAL = LEASE_S  # type: ignore[attr-defined]
    in_memory_corestate.HEARTBEAT_PATIENCE = SILENCE_S / LEASE_S  # type: ignore[attr-defined,assignment]


def speak_tls_1_3() -> None:
    """Let the SuperNode refuse a coordinator, or who says that he is, that speaks an older TLS."""
    flower: Any = import_module("flwr.supercore.protobuf.client")

    def modern(protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    flower.ssl = SimpleNamespace(SSLContext=modern, PROTOCOL_TLS_CLIENT=ssl.PROTOCOL_TLS_CLIENT)


def refuse_other_flower(found: str) -> None:
    """What is changed here is known of one version.

    Raises:
        SystemExit: it is another.
    """
    if found != FLOWER:
        sys.exit(f"flwr: expected {FLOWER}, which this SuperNode is made for, got {found}. Install hipfed anew.")


def _name_process(name: str) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _end_with(launcher: int) -> None:
    """Without its launcher a SuperNode would take questions on that nobody answers."""
    os.waitpid(launcher, 0)
    sys.stdout.write("The launcher of couriers has ended\n")
    _end(1)


def _end(status: object) -> NoReturn:
    """End this process, whatever threads are left."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def _runtime_address(words: list[str]) -> str:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port")
    given, _ = parser.parse_known_args(words)
    return f"{given.host}:{given.port}"


def main() -> None:
    """Run Flower's command with this process's options; the process ends with it, whatever threads are left."""
    refuse_other_flower(version("flwr"))
    launcher = start_launcher(_runtime_address(sys.argv[1:]))
    threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()
    tell_lost_questions()
    take_stored_pieces()
    lend_longer()
    speak_tls_1_3()
    try:
        flower_supernode()
    except Exception:  # noqa: BLE001 - shown, and the process ends
        traceback.print_exc()
    _end(1)


if __name__ == "__main__":
    main()
