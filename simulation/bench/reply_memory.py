"""Peak memory of the coordinator's side of one round, as the number of hospitals grows.

The question is put by `ask_sites` through the link that a run uses, and answers go into the reducer of a run. Behind
the link stands no network but a grid whose hospitals have all answered by the first look: the worst case. An answer is
made when the link pulls it, as Flower's own grid downloads it then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import Message, Metadata
from flwr.app.message import make_message
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from server.flower.link import FlowerLink
from server.protocol.quorum import ask_sites
from server.protocol.reduce import PlainSum
from shared_model.errors import StudyError
from shared_model.protocol.messages import TRAIN, SumsReply
from shared_model.protocol.quantities import Quantity
from simulation.bench.isolated import run_isolated

ARRAYS = 20
TIMEOUT_S = 600.0
_UNUSED = "the link pushes and pulls messages and uses nothing else of the grid"


def measure_memory(hospitals: Sequence[int], *, model_mb: int) -> dict[str, Any]:
    """Peak of a process of its own for each number of hospitals.

    Args:
        hospitals: numbers to compare.
        model_mb: size of each answer in MB (10^6 bytes), as 32-bit floats in 20 arrays.

    Returns:
        Per number the peak in MB, in all and above what was there before the round; and their largest ratio.

    Raises:
        StudyError: a measurement failed.
    """
    rows = []
    for n_sites in hospitals:
        outcome = run_isolated(one_round, n_sites, model_mb, timeout_s=TIMEOUT_S)
        if outcome.error is not None:
            raise StudyError(f"memory with {n_sites} hospitals: expected a measurement, got {outcome.error}.")
        rows.append(
            {
                "hospitals": n_sites,
                "peak_mb": round(outcome.peak_mb),
                "above_idle_mb": round(outcome.peak_mb - outcome.prepared_mb),
                "seconds": round(outcome.seconds, 1),
            }
        )
    peaks = [row["peak_mb"] for row in rows]
    return {"model_mb": model_mb, "rounds": rows, "largest_over_smallest": round(max(peaks) / min(peaks), 3)}


def one_round(n_sites: int, model_mb: int) -> Callable[[], int]:
    """Ready for a round of so many hospitals; returns how many answers were added."""
    for name in ("task_id", "run_id", "node_id"):  # as Flower does before it starts an app
        setattr(TaskIdentity, name, 1)
    n_values = model_mb * 1_000_000 // (4 * ARRAYS)
    weights = {f"layer.{i}": np.full(n_values, 0.5, dtype=np.float32) for i in range(ARRAYS)}
    quantities = {name: Quantity((n_values,), limit=1000.0) for name in weights}
    question = SumsReply(arrays=weights).to_record()
    nodes = range(1, n_sites + 1)
    link = FlowerLink(AnsweredGrid(n_values))

    def ask() -> int:
        total = PlainSum(quantities)
        attendance = ask_sites(
            link,
            TRAIN,
            dict.fromkeys(nodes, question),
            names={node: f"hospital_{node}" for node in nodes},
            deadline_s=TIMEOUT_S,
            accept=lambda node, record: total.add(SumsReply.from_record(record).arrays, where=str(node)),
        )
        if len(attendance.answered) != n_sites:
            raise StudyError(f"round: expected {n_sites} answers, got {len(attendance.answered)}.")
        return len(attendance.answered)

    return ask


class AnsweredGrid(Grid):
    """Every message has its answer at once.

    Args:
        n_values: of each of the answer's arrays.
    """

    def __init__(self, n_values: int) -> None:
        self._n_values = n_values
        self._nodes: dict[str, int] = {}
        self._lock = threading.Lock()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; their ids."""
        pushed = {f"m{len(self._nodes) + i}": message.metadata.dst_node_id for i, message in enumerate(messages)}
        self._nodes |= pushed
        return list(pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers to these, each made now, and given once."""
        with self._lock:
            taken = {name: self._nodes.pop(name) for name in list(message_ids) if name in self._nodes}
        return [self._answer(name, node) for name, node in taken.items()]

    def _answer(self, message_id: str, node: int) -> Message:
        arrays = {f"layer.{i}": np.full(self._n_values, 1.0 / node, dtype=np.float32) for i in range(ARRAYS)}
        metadata = Metadata(
            run_id=1,
            message_id="",
            src_node_id=node,
            dst_node_id=1,
            reply_to_message_id=message_id,
            group_id="",
            created_at=0.0,
            ttl=TIMEOUT_S,
            message_type=TRAIN,
        )
        return make_message(metadata, content=SumsReply(arrays=arrays).to_record())

    def get_node_ids(self) -> Iterable[int]:
        """All."""
        return list(self._nodes.values())

    def set_run(self, *_: Any, **__: Any) -> None:
        """Not used."""
        raise AssertionError(_UNUSED)

    @property
    def run(self) -> Any:
        """Not used."""
        raise AssertionError(_UNUSED)

    def create_message(self, *_: Any, **__: Any) -> Message:
        """Not used."""
        raise AssertionError(_UNUSED)

    def send_and_receive(self, *_: Any, **__: Any) -> Iterable[Message]:
        """Not used."""
        raise AssertionError(_UNUSED)
