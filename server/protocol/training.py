"""Step 4: the training rounds of all phases, with best round, early stopping and a line in rounds.jsonl for each."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict

from server.protocol.drift import explain_round, explains_round
from server.protocol.evaluation import score_part
from server.protocol.link import Link
from server.protocol.newton import NewtonStep, is_converged
from server.protocol.plan import StudyPlan
from server.protocol.quorum import Attendance, ask_sites, require_quorum
from server.protocol.reduce import PlainSum
from server.protocol.strategy import RoundTotal, Strategy, build_strategy
from server.protocol.whole_model import WholeModel
from server.run_folder.checkpoints import Progress
from shared_model.config import Phase
from shared_model.errors import StudyError
from shared_model.evaluation.metrics import Metrics, summarise
from shared_model.evaluation.score_quantities import unpack_scores
from shared_model.model.fusion import empty_model
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.messages import TRAIN, SumsReply, TrainRequest
from shared_model.protocol.reply_quantities import reply_quantities
from shared_model.training.newton_rules import uses_newton
from shared_model.training.updates import Weights, check_reply, hash_weights

log = logging.getLogger("hipfed.server")

Keep = Callable[[Progress], None]


@dataclass(frozen=True)
class PhaseWeights:
    """Which weights travel in a phase, and who holds the others already."""

    phase: Phase
    trained: tuple[str, ...]
    frozen: Mapping[str, np.ndarray]
    frozen_sha256: str
    holders: set[int]


def train_phases(link: Link, plan: StudyPlan, progress: Progress, *, keep: Keep) -> None:
    """Go through the remaining phases; `progress.weights` ends as the best weights of the last one.

    Args:
        link: the way to the hospitals.
        plan: the run's constants.
        progress: where the run stands; changed in place.
        keep: called after every round to make `progress` durable.

    Raises:
        StudyError: a round without quorum.
    """
    phases = plan.settings.phases
    while progress.phase_index < len(phases):
        phase = phases[progress.phase_index]
        _train_phase(link, plan, phase, progress, keep=keep)
        log.info("phase %s: the best weights are those after round %d", phase, progress.best_round)
        if progress.best_round < progress.round_number:
            progress.discarded.append((progress.best_round, progress.round_number))
        progress.weights, progress.weights_round = progress.best_weights, progress.best_round
        progress.phase_index += 1
        progress.best_loss = math.inf
        progress.rounds_in_phase = progress.rounds_since_best = 0
        progress.strategy_state = {}
        keep(progress)


def _train_phase(link: Link, plan: StudyPlan, phase: Phase, progress: Progress, *, keep: Keep) -> None:
    model = empty_model(plan.schema, plan.settings, device=torch.device("meta"))
    trained = model.travelling_in(phase)
    frozen = {name: progress.weights[name] for name in model.frozen_in(phase)}
    weights = PhaseWeights(phase, trained, frozen, hash_weights(frozen), set())
    while progress.rounds_in_phase < plan.settings.rounds(phase) and not is_converged(progress.strategy_state):
        if progress.rounds_since_best >= plan.settings.patience:
            return
        metrics, stepped = _train_round(link, plan, weights, progress, keep=keep)
        _note_validation(progress, metrics)
        progress.weights = {**progress.weights, **stepped}
        progress.rounds_in_phase += 1
        progress.round_number += 1
        progress.weights_round = progress.round_number
        if explains_round(plan.settings, phase, progress.round_number):
            progress.rounds[-1]["explanation"] = explain_round(link, plan, phase, progress)
        keep(progress)
    if is_converged(progress.strategy_state):
        log.info("phase %s: converged after %d rounds", phase, progress.rounds_in_phase)
    metrics, attendance = score_part(WholeModel(link, plan, progress, phase=phase), "val")
    line = {"round": progress.round_number, "phase": phase, "train_loss": None}
    _add_line(progress, line, attendance, metrics, rule=plan.rule)
    _note_validation(progress, metrics)


def _train_round(
    link: Link, plan: StudyPlan, parts: PhaseWeights, progress: Progress, *, keep: Keep
) -> tuple[Metrics, dict[str, np.ndarray]]:
    """One question to every hospital; returns the incoming model's validation and the weights after the round."""
    before: Weights = {name: progress.weights[name] for name in parts.trained}
    total = PlainSum(reply_quantities(before, plan.settings, phase=parts.phase, schema=plan.schema), agrees=check_reply)
    strategy = choose_strategy(plan, parts.phase, progress.strategy_state)

    def accept(node: int, record: RecordDict) -> None:
        total.add(SumsReply.from_record(record).arrays, where=plan.roster.names[node])
        parts.holders.add(node)

    def ask(nodes: Collection[int]) -> Attendance:
        questions = _questions(plan, parts, progress, strategy)
        attendance = ask_sites(
            link,
            TRAIN,
            {node: questions[node] for node in nodes},
            names=plan.roster.names,
            deadline_s=plan.settings.deadline_s,
            accept=accept,
        )
        # Who failed may have lost the weights that it held: they go along with its next question.
        parts.holders.difference_update(node for node, name in plan.roster.names.items() if name in attendance.failed)
        plan.note_holders(attendance)
        return attendance

    attendance = ask(plan.roster.names)
    if attendance.lacking:
        attendance = attendance.joined_by(ask(attendance.lacking))
    sums = total.total()
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


def _questions(plan: StudyPlan, parts: PhaseWeights, progress: Progress, strategy: Strategy) -> dict[int, RecordDict]:
    """One record for all hospitals alike, with the frozen weights for those that have not shown to hold them.

    Under SCAFFOLD there is one for each round in which a hospital's answer counted last.
    """

    @cache
    def record(*, has_networks: bool, has_frozen: bool, counted_round: int) -> RecordDict:
        return TrainRequest(
            study=plan.study,
            phase=parts.phase,
            round_number=progress.round_number,
            weights_round=progress.weights_round,
            discarded=tuple((after, last) for after, last in progress.discarded),
            preprocessing=plan.preprocessing.to_json(),
            event_weight=plan.event_weight,
            networks_sha256=progress.networks_sha256,
            frozen_sha256=parts.frozen_sha256,
            weights={name: progress.weights[name] for name in parts.trained},
            networks={} if has_networks else dict(progress.networks),
            frozen={} if has_frozen else dict(parts.frozen),
            control=strategy.control(),
            counted_round=counted_round,
        ).to_record()

    return {
        node: record(
            has_networks=node in plan.network_holders,
            has_frozen=node in parts.holders,
            counted_round=strategy.counted_round(name),
        )
        for node, name in plan.roster.names.items()
    }


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
