"""The courier: Flower's ClientApp. It hands each message to the hospital's worker and returns the answer."""

from __future__ import annotations

import functools
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.data import default_cache_dir, list_hospitals
from client.site import Site
from client.worker import Worker
from shared_model.messages import (
    BACKGROUND,
    EVALUATE,
    EXPLAIN,
    HANDSHAKE,
    QUALITY,
    REFERENCE,
    SPREAD,
    STATISTICS,
    TRAIN,
    Refusal,
)

app = ClientApp()


@functools.cache
def _worker(name: str, folder: Path, cache_dir: Path) -> Worker:
    return Worker(Site(name, folder, cache_dir))


def _site_of(context: Context) -> tuple[str, Path]:
    """The hospital of this node: named by its own node config, or the n-th folder of the cohort in a simulation."""
    node, run = context.node_config, context.run_config
    if "data" in node:
        folder = Path(str(node["data"])).resolve()
        return str(node.get("hospital", folder.name)), folder
    folder = list_hospitals(Path(str(run["cohort"])))[int(str(node["partition-id"]))]
    return folder.name, folder


def _hand_over(message: Message, context: Context) -> Message:
    try:
        name, folder = _site_of(context)
        worker = _worker(name, folder, Path(str(context.node_config.get("cache", default_cache_dir()))))
    except Exception as error:  # noqa: BLE001 - Flower would send its text, which may name paths
        reason = f"the hospital could not start: {type(error).__name__}"
        return Message(Refusal(site=f"node {context.node_id}", reason=reason).to_record(), reply_to=message)
    return Message(worker.answer(message.metadata.message_type, message.content), reply_to=message)


for _kind in (HANDSHAKE, REFERENCE, QUALITY, STATISTICS, BACKGROUND, EXPLAIN, SPREAD):
    app.query(_kind.removeprefix("query."))(_hand_over)
app.train()(_hand_over)
app.evaluate()(_hand_over)

assert (TRAIN, EVALUATE) == ("train", "evaluate")  # noqa: S101 - Flower fixes these two names
