"""Flower's SuperNode, with an end.

Flower's own command stays, connected to nobody, where its loop was left by an exception (such as a connection that a
proxy cuts within the TLS handshake), because the thread that serves the ClientApp goes on (flwr 1.41). The interpreter
is given this file as text: a separated process may not read the project's folder.
"""

from __future__ import annotations

import os
import sys
import traceback

from flwr.supernode.cli import flower_supernode


def main() -> None:
    """Run Flower's command with this process's options; the process ends with it, whatever threads are left."""
    try:
        flower_supernode()
    except Exception:  # noqa: BLE001 - shown, and the process ends
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
