"""Step 4: the training rounds of a phase, with best round, early stopping and a line in rounds.jsonl for each."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch

from server.protocol.drift import explain_round, explains_round
from server.protocol.evaluation import score_part
from server.protocol.newton import NewtonStep, is_converged
from server.protocol.plan import StudyPlan
from server.protocol.quorum import Attendance, require_quorum
from server.protocol.strategy import RoundTotal, Strategy, build_strategy
from server.protocol.whole_model import WholeModel
from server.run_folder.checkpoints import Progress
from shared_model.config import Phase, Settings
from shared_model.errors import StudyError
from shared_model.evaluation.metrics import Metrics, summarise
from shared_model.evaluation.score_quantities import unpack_scores
from shared_model.model.fusion import empty_model
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.messages import TrainRequest
from shared_model.training.newton_rules import uses_newton
from shared_model.training.updates import Weights, hash_weights

log = logging.getLogger("hipfed.server")

Keep = Callable[[Progress], None]


@dataclass(frozen=True)
class PhaseWeights:
    """Which weights travel in a phase, and who holds the others already."""

    phase: Phase
    trained: tuple[str, ...]
    frozen: Mapping[str, np.ndarray]
    frozen_sha256: str
    holders: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, plan: StudyPlan, phase: Phase, weights: Weights) -> PhaseWeights:
        """At the start of a phase."""
        model = empty_model(plan.schema, plan.settings, device=torch.device("meta"))
        frozen = {name: weights[name] for name in model.frozen_in(phase)}
        return cls(phase, model.travelling_in(phase), frozen, hash_weights(frozen))


def train_phase(plan: StudyPlan, progress: Progress, *, keep: Keep) -> None:
    """The rounds of the phase that is next; `progress.weights` ends as the best weights of it.

    Args:
        plan: the run's constants.
        progress: where the run stands; changed in place.
        keep: called after every round to make `progress` durable.

    Raises:
        StudyError: a round without quorum.
    """
    phase = plan.settings.phases[progress.phase_index]
    parts = PhaseWeights.of(plan, phase, progress.weights)
    while not _is_done(plan.settings, phase, progress) and progress.rounds_since_best < plan.settings.patience:
        metrics, stepped = _train_round(plan, parts, progress, keep=keep)
        _note_validation(progress, metrics)
        progress.weights = {**progress.weights, **stepped}
        progress.rounds_in_phase += 1
        progress.round_number += 1
        progress.weights_round = progress.round_number
        if explains_round(plan.settings, phase, progress.round_number):
            progress.rounds[-1]["explanation"] = explain_round(plan, phase, progress)
        keep(progress)
    if is_converged(progress.strategy_state):
        log.info("phase %s: converged after %d rounds", phase, progress.rounds_in_phase)
    if _is_done(plan.settings, phase, progress):
        _validate_last(plan, phase, progress)
    _end_phase(progress, phase)
    keep(progress)


def _is_done(settings: Settings, phase: Phase, progress: Progress) -> bool:
    """True where the phase has had its rounds or has converged."""
    return progress.rounds_in_phase >= settings.rounds(phase) or is_converged(progress.strategy_state)


def _validate_last(plan: StudyPlan, phase: Phase, progress: Progress) -> None:
    """Score the weights that the last round made: a round validates those that it starts from."""
    metrics, attendance = score_part(WholeModel(plan, progress, phase=phase), "val")
    line = {"round": progress.round_number, "phase": phase, "train_loss": None}
    _add_line(progress, line, attendance, metrics, rule=plan.rule)
    _note_validation(progress, metrics)


def _end_phase(progress: Progress, phase: Phase) -> None:
    """Go back to the best weights, and make ready for the next phase."""
    log.info("phase %s: the best weights are those after round %d", phase, progress.best_round)
    if progress.best_round < progress.round_number:
        progress.discarded.append((progress.best_round, progress.round_number))
    progress.weights, progress.weights_round = progress.best_weights, progress.best_round
    progress.phase_index += 1
    progress.best_loss = math.inf
    progress.rounds_in_phase = progress.rounds_since_best = 0
    progress.strategy_state = {}


def _train_round(
    plan: StudyPlan, parts: PhaseWeights, progress: Progress, *, keep: Keep
) -> tuple[Metrics, dict[str, np.ndarray]]:
    """One question to every hospital; returns the incoming model's validation and the weights after the round."""
    before: Weights = {name: progress.weights[name] for name in parts.trained}
    strategy, names = choose_strategy(plan, parts.phase, progress.strategy_state), plan.hospitals.names
    answers = plan.hospitals.ask(
        _compose_request(plan, parts, progress, control=strategy.control()),
        holders={"networks": plan.network_holders, "frozen": parts.holders},
        vary=lambda node: {"counted_round": strategy.counted_round(names[node])},
    )
    sums, attendance = answers.sums, answers.attendance
    metrics = summarise(unpack_scores(sums))
    train_loss = float(sums["train-loss-sum"] / sums["n-train"]) if sums["n-train"] else None
    round_number = progress.round_number + 1
    line = {"round": round_number, "phase": parts.phase, "train_loss": train_loss}
    _add_line(progress, line, attendance, metrics, rule=plan.rule)
    if len(attendance.answered) < plan.settings.min_sites:
        keep(progress)  # so that rounds.jsonl shows the round that ends the run
    require_quorum(attendance, min_sites=plan.settings.min_sites, step=f"round {round_number} ({parts.phase})")
    stepped = strategy.advance(before, RoundTotal(sums, attendance.answered, round_number))
    if isinstance(strategy, NewtonStep) and strategy.penalties:
        progress.rounds[-1]["penalties"] = dict(zip(penalised_columns(plan), strategy.penalties, strict=True))
    progress.strategy_state = strategy.state
    return metrics, stepped


def _compose_request(plan: StudyPlan, parts: PhaseWeights, progress: Progress, *, control: Weights) -> TrainRequest:
    """The question of a round, with all weights that any hospital may lack."""
    return TrainRequest(
        study=plan.hospitals.study,
        phase=parts.phase,
        round_number=progress.round_number,
        weights_round=progress.weights_round,
        discarded=tuple((after, last) for after, last in progress.discarded),
        preprocessing=plan.preprocessing.to_json(),
        event_weight=plan.event_weight,
        networks_sha256=progress.networks_sha256,
        frozen_sha256=parts.frozen_sha256,
        weights={name: progress.weights[name] for name in parts.trained},
        networks=progress.networks,
        frozen=dict(parts.frozen),
        control=dict(control),
    )


def choose_strategy(plan: StudyPlan, phase: Phase, state: Mapping[str, np.ndarray]) -> Strategy:
    """The strategy of a phase: under `newton` FedAvg where the encoders train, too."""
    if uses_newton(plan.settings, phase):
        return NewtonStep(
            penalty=plan.settings.head_penalty, groups=list(penalised_columns(plan).values()), state=state
        )
    return build_strategy(plan.settings, n_train=plan.preprocessing.n, state=state)


def penalised_columns(plan: StudyPlan) -> dict[str, slice]:
    """Where the weights of each modality lie in the linear head; none where all share the given penalty.

    A weighted likelihood takes copies of deaths for patients, so its evidence means nothing.
    """
    if not plan.settings.adapt_penalty or plan.settings.class_weight != "none":
        return {}
    widths = empty_model(plan.schema, plan.settings, device=torch.device("meta")).widths
    ends = list(accumulate(widths.values()))
    return {name: slice(start, end) for name, (start, end) in zip(widths, pairwise([0, *ends]), strict=True)}


def _note_validation(progress: Progress, metrics: Metrics) -> None:
    """Keep the current weights if they are the best of the phase."""
    if metrics.log_loss is None:
        raise StudyError("validation: expected patients in the validation part, got none. Use fewer folds.")
    if metrics.log_loss < progress.best_loss:
        progress.best_loss, progress.best_weights = metrics.log_loss, progress.weights
        progress.best_round, progress.rounds_since_best = progress.weights_round, 0
    else:
        progress.rounds_since_best += 1


def _add_line(
    progress: Progress, line: dict[str, Any], attendance: Attendance, metrics: Metrics, *, rule: SmallCellRule
) -> None:
    """One line of rounds.jsonl; the validation is of the weights that the round started from.

    Of a validation part in which too few had the event its metrics are null: they tell where these few rank.
    """
    shown = rule.may_release(n=metrics.n, events=metrics.events)
    val_loss, val_auc = (metrics.log_loss, metrics.auc) if shown else (None, None)
    line |= {
        "asked": attendance.asked,
        "answered": attendance.answered,
        "failed": attendance.failed,
        "n": metrics.n,
        "val_loss": val_loss,
        "val_auc": val_auc,
        "seconds": attendance.seconds,
        "bytes_down": attendance.bytes_down,
        "bytes_up": attendance.bytes_up,
    }
    progress.rounds.append(line)
    losses = (line["train_loss"], val_loss, val_auc)
    log.info(
        "round %d %s: %d of %d hospitals, train loss %s, validation loss %s, AUC %s",
        line["round"],
        line["phase"],
        len(attendance.answered),
        len(attendance.asked),
        *(f"{value:.4f}" if value is not None else "-" for value in losses),
    )
