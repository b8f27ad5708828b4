"""A coordinator on loopback that says of itself what a test wants."""

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from shared_model.identity.coordinator_status import STATUS_PATH
from shared_model.protocol.messages import PROTOCOL_VERSION


def status_of(**changes: Any) -> dict[str, Any]:
    """What a coordinator of this version says now, but for the changes."""
    return {"hipfed": "0.1.0", "protocol": PROTOCOL_VERSION, "time": datetime.now(UTC).isoformat(), **changes}


@contextmanager
def serve_status(content: Mapping[str, Any], tls: Path | None) -> Iterator[int]:
    """Serve it, under the certificate of a folder or without TLS; the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(content).encode() if self.path == STATUS_PATH else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that does not trust us is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "server.crt", tls / "server.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
