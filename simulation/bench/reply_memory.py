"""Peak memory of the coordinator's side of one round, as the number of hospitals grows.

The question of a round is put through the link that a run uses, and answers go into the reducer of a run. Behind
the link stands no network but a grid whose hospitals have all answered by the first look: the worst case. An answer is
made when the link pulls it, as Flower's own grid downloads it then.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Message, Metadata
from flwr.app.message import make_message
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from server.flower.link import FlowerLink
from server.protocol.hospitals import Hospitals
from shared_model.config import parse_settings
from shared_model.errors import StudyError
from shared_model.protocol.messages import PROTOCOL_VERSION, TRAIN, StudyReference, SumsReply, TrainRequest
from shared_model.protocol.questions import find_question
from shared_model.schema import parse_schema
from shared_model.training.updates import N_TRAIN, PREFIX
from simulation.bench.isolated import run_isolated

ARRAYS = 20
TIMEOUT_S = 600.0
_SCHEMA = """
[study]
name = "memory"
title = "Memory of a round"
outcome = "died"
patient_id = "patient_id"

[[static]]
name = "age"
kind = "numeric"
unit = "years"
range = [0, 120]
"""
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
    names = {node: f"hospital_{node}" for node in range(1, n_sites + 1)}
    schema = parse_schema(_SCHEMA, source="schema.toml")
    study = StudyReference(run_id="memory", protocol=PROTOCOL_VERSION, schema_sha256=schema.sha256, settings={})
    request = TrainRequest(
        study=study,
        phase="joint",
        round_number=0,
        weights_round=0,
        preprocessing="{}",
        event_weight=1.0,
        networks_sha256="0" * 64,
        frozen_sha256="0" * 64,
        weights={f"layer.{i}": np.full(n_values, 0.5, dtype=np.float32) for i in range(ARRAYS)},
    )
    settings = parse_settings({"strategy": "fedavg", "deadline-s": TIMEOUT_S})
    quantities = find_question(request).quantities(request, schema, settings)
    link = FlowerLink(AnsweredGrid({name: quantity.shape for name, quantity in quantities.items()}))
    hospitals = Hospitals(link, study, schema, settings, names)

    def ask() -> int:
        attendance = hospitals.ask(request).attendance
        if len(attendance.answered) != n_sites:
            raise StudyError(f"round: expected {n_sites} answers, got {attendance.failed}.")
        return len(attendance.answered)

    return ask


class AnsweredGrid(Grid):
    """Every message has its answer at once.

    Args:
        shapes: of the answer's arrays.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
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
        arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in self._shapes.items()}
        arrays |= {name: array + 1.0 / node for name, array in arrays.items() if name.startswith(PREFIX)}
        arrays[N_TRAIN] = np.ones((), dtype=np.float32)
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
