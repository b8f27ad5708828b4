"""The worker in the courier's own process: in a simulation, and where a node's config names a data folder."""

import functools
from pathlib import Path

from flwr.app import Context

from client.cohort_folder import list_hospitals
from client.data import cohort_cache_dir, named_folder
from client.site import Site
from client.worker.answering import Worker


def worker_of(context: Context) -> Worker:
    """The worker of this node's hospital, opened once a process.

    Raises:
        Exception: the hospital cannot be opened; the text may name paths.
    """
    name, folder = _site_of(context)
    cache_dir = Path(str(context.node_config.get("cache", cohort_cache_dir(folder.parent))))
    return open_worker(name, folder, cache_dir, simulated="data" not in context.node_config)


@functools.cache
def open_worker(name: str, folder: Path, cache_dir: Path, *, simulated: bool) -> Worker:
    """The worker of a hospital."""
    return Worker(Site(name, folder, cache_dir), simulated=simulated)


def _site_of(context: Context) -> tuple[str, Path]:
    """The hospital of this node: named by its own node config, or the n-th folder of the cohort in a simulation."""
    node, run = context.node_config, context.run_config
    if "data" in node:
        folder = named_folder(Path(str(node["data"])))
        return str(node.get("hospital", folder.name)), folder
    folder = list_hospitals(Path(str(run["cohort"])))[int(str(node["partition-id"]))]
    return folder.name, folder
