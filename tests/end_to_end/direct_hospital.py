"""A hospital without a worker of its own: the SuperNode under the real supervisor, its client opens the data itself.

`python -P -m tests.end_to_end.direct_hospital HOME`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from client.courier_part import CourierPart
from client.home import HospitalHome
from client.supervise import courier_of, describe_site, processes_of
from shared_model.supervisor import Supervisor


def main(path: Path) -> None:
    """Keep the SuperNode running until told to stop."""
    home = HospitalHome(path)
    settings = home.read_settings()
    for folder in (courier_of(home) / "flower", courier_of(home) / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    courier = CourierPart(
        home,
        settings,
        folder=courier_of(home),
        node_config={"data": settings.data, "hospital": settings.name, "cache": settings.cache},
        separate=lambda command, _port: command,
    )
    supervisor = Supervisor(
        [courier],
        folder=processes_of(home),
        describe=lambda: describe_site(settings.server, courier, worker="none"),
        say=lambda line: print(line, flush=True),  # noqa: T201
    )
    supervisor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
