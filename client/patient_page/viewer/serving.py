"""The viewer served on 127.0.0.1 until Ctrl-C."""

import contextlib
import socket
from collections.abc import Callable

import uvicorn

from client.patient_page.viewer.app import build_viewer
from client.patient_page.viewer.roster import PatientList
from shared_model.errors import SettingsError

LOOPBACK = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """A socket that only this machine reaches.

    Args:
        port: 0 for a free one.

    Raises:
        SettingsError: the port is taken, or not for this user.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise SettingsError(f"--port {port}: expected a free port, got: {error.strerror}. Name another.") from error
    return listener


def serve(roster: PatientList, listener: socket.socket, *, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; a page in the making is finished first, a second Ctrl-C does not wait for it.

    Args:
        roster: the patients.
        listener: from `listen`.
        say: told the address to begin at.
    """
    app = build_viewer(roster, port=listener.getsockname()[1])
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            proxy_headers=False,
        )
    )
    say(app.start_address)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again at its end
        server.run(sockets=[listener])
