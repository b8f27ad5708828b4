"""Ranges of shares: the head refitted on resampled patients, all refits with the same few questions.

The interval by the delta method keeps the model and draws its test patients anew; with other training patients the
model, and so the share, would be another one. Here every refit takes the Newton steps of the fit, with penalties chosen
by evidence again, on patients whom the hospitals count a random number of times (`shared_model.training.refits`).
Encoders and preprocessing stay as they are.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from scipy.stats import norm

from server.protocol.explain import CommonBackground
from server.protocol.newton import PENALTY_RANGE, invert_hessian, settled_penalty
from server.protocol.plan import StudyPlan
from server.protocol.training import penalised_columns
from server.protocol.whole_model import WholeModel
from shared_model.model.fusion import empty_model
from shared_model.protocol.messages import Part, WholeModelRequest
from shared_model.protocol.refit_messages import RefitRequest, SizesRequest
from shared_model.shapley.shares import LEVEL
from shared_model.training.newton import GRADIENT, HEAD_BIAS, HEAD_WEIGHT, HESSIAN, unpack_hessian
from shared_model.training.refits import LOSS, is_refitted, refits_in_message
from shared_model.training.refits import SIZES as SIZE_SUMS
from shared_model.training.updates import Weights

log = logging.getLogger("hipfed.server")

MOST_STEPS = 30
SETTLED_GAIN = 1e-3  # of the summed loss: so far a head is from its optimum by 0.045 of its posterior's sd or less
MOST_UNSETTLED = 0.05
MOST_COLUMNS = 300  # a step costs refits x columns^3: at 200 and 300 some two minutes
_ROUNDING = 1e-6  # of the summed loss, in fixed point
_NEARLY = 0.99  # penalties settle to a thousandth

Sums = Mapping[str, np.ndarray]
Ask = Callable[[Sequence[int], Float64[np.ndarray, "refit column"]], Sums]


class _LeftOutError(Exception):
    """There are no ranges, and why."""


@dataclass(frozen=True)
class ShareRefits:
    """Shares of the refitted heads.

    Attributes:
        shares: of every refit.
        at_limit: whether the evidence of all patients, each counted once, leaves the modality out.
        reason: why there are none; empty if there are.
    """

    shares: Float64[np.ndarray, "refit modality"]
    at_limit: Bool[np.ndarray, "modality"]
    reason: str = ""


@dataclass
class Refit:
    """One head on its way: the last accepted point, and the step from there."""

    head: Float64[np.ndarray, "column"]
    penalty: Float64[np.ndarray, "column"]
    direction: Float64[np.ndarray, "column"] | None = None
    step: float = 1.0
    objective: float = np.inf
    gain: float = np.inf

    @property
    def next_head(self) -> Float64[np.ndarray, "column"]:
        """Where the loss is to be asked for."""
        return self.head if self.direction is None else self.head + self.step * self.direction

    def advance(
        self,
        loss: float,
        gradient: Float64[np.ndarray, "column"],
        curvature: Float64[np.ndarray, "column column"],
        *,
        groups: Sequence[slice],
    ) -> None:
        """Accept `next_head` and step on from there, or halve the step where the loss has risen (as `NewtonStep`)."""
        head = self.next_head
        if loss + _size(self.penalty, head) > self.objective + _ROUNDING:
            self.step /= 2
            return
        self.penalty = settled_penalty(head, gradient, curvature, self.penalty, groups=groups)
        slope = gradient + self.penalty * head
        self.direction = -invert_hessian(curvature + np.diag(self.penalty)) @ slope
        self.head, self.step = head, 1.0
        self.objective = loss + _size(self.penalty, head)
        self.gain = -float(slope @ self.direction) / 2


def fit_heads(
    ask: Ask,
    head: Float64[np.ndarray, "column"],
    *,
    n_refits: int,
    penalty: float,
    groups: Sequence[slice],
    settled_gain: float = SETTLED_GAIN,
) -> list[Refit]:
    """Refits 0 (every patient once) to `n_refits`, each from the fitted head on until it has settled.

    Args:
        ask: sums of some refits at these heads.
        head: fitted weights, then the intercept.
        n_refits: beside refit 0.
        penalty: of every weight, or what the groups' penalties start from, as in the fit.
        groups: weights that share a penalty; none = all keep the given one.
        settled_gain: by how much a further step may still lower the summed loss.
    """
    start = np.append(np.full(len(head) - 1, penalty), 0.0)
    refits = [Refit(head.copy(), start) for _ in range(n_refits + 1)]
    for _ in range(MOST_STEPS):
        moving = [number for number, refit in enumerate(refits) if refit.gain > settled_gain]
        if not moving:
            break
        sums = ask(moving, np.stack([refits[number].next_head for number in moving]))
        for row, number in enumerate(moving):
            curvature = unpack_hessian(sums[HESSIAN][row], len(head))
            refits[number].advance(float(sums[LOSS][row]), sums[GRADIENT][row], curvature, groups=groups)
    return refits


def refit_shares(
    model: WholeModel, weights: Weights, background: CommonBackground, *, answered: Collection[str]
) -> ShareRefits:
    """Shares of the final model's head, refitted on resampled training patients, over resampled test patients.

    Args:
        model: the final one.
        weights: of it.
        background: that it was explained against.
        answered: hospitals whose patients were explained; if others answer, there are no ranges.

    Raises:
        StudyError: no quorum.
    """
    plan = model.plan
    widths = empty_model(plan.schema, plan.settings, device=torch.device("meta")).widths
    if reason := _reason_against(plan, sum(widths.values())):
        return _none(reason, len(widths))
    questions = _Questions(model, sorted(answered))
    groups = penalised_columns(plan)
    head = np.append(weights[HEAD_WEIGHT][0], weights[HEAD_BIAS]).astype(np.float64)
    try:
        refits = fit_heads(
            questions.ask_sums,
            head,
            n_refits=plan.settings.share_refits,
            penalty=plan.settings.head_penalty,
            groups=list(groups.values()),
        )
        unsettled = sum(refit.gain > SETTLED_GAIN for refit in refits)
        log.info("refits of the head: %d, of which %d have not settled", len(refits) - 1, unsettled)
        if unsettled > MOST_UNSETTLED * len(refits):
            return _none(f"{unsettled} of {len(refits)} refits did not settle in {MOST_STEPS} steps", len(widths))
        sizes = questions.ask_sizes(np.stack([refit.next_head for refit in refits]), background)
    except _LeftOutError as error:
        return _none(str(error), len(widths))
    limit = PENALTY_RANGE[1]
    at_limit = [bool(groups) and refits[0].penalty[groups[name].start] >= _NEARLY * limit for name in widths]
    if not sizes.sum(axis=1).all():
        return _none("some refitted heads use none of their inputs", len(widths))
    shares = sizes / sizes.sum(axis=1, keepdims=True)
    return ShareRefits(shares[1:], np.array(at_limit))


def share_ranges(
    fitted: Float64[np.ndarray, "modality"], refitted: Float64[np.ndarray, "refit modality"]
) -> Float64[np.ndarray, "modality 2"]:
    """Where shares may lie with other training patients: as far as one of two intervals reaches.

    The refits' central 95 % alone lies too low for the strongest modality and too high for the weak ones: |phi| of
    noise is never negative, and a refit, which counts patients twice, has more of it. So the interval of the same
    spread about the fitted share is added. How often both hold a true share: `hipfed-sim bench ranges`.

    Args:
        fitted: shares of the model; NaN = hidden, where the quantiles stand alone.
        refitted: shares of each refit.
    """
    quantiles = np.quantile(refitted, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    reach = norm.ppf((1 + LEVEL) / 2) * refitted.std(axis=0, ddof=1) if len(refitted) > 1 else np.zeros(len(fitted))
    low, high = np.fmin(quantiles[0], fitted - reach), np.fmax(quantiles[1], fitted + reach)
    return np.asarray(np.clip(np.stack([low, high], axis=1), 0.0, 1.0))


class _Questions:
    """Questions about many heads, in messages of bounded size, always to be answered by the same hospitals."""

    def __init__(self, model: WholeModel, answered: list[str]) -> None:
        self._model, self._answered = model, answered

    def ask_sums(self, numbers: Sequence[int], heads: Float64[np.ndarray, "refit column"]) -> Sums:
        return self._ask(RefitRequest, numbers, heads, part="train")

    def ask_sizes(
        self, heads: Float64[np.ndarray, "refit column"], background: CommonBackground
    ) -> Float64[np.ndarray, "refit modality"]:
        sums = self._ask(
            SizesRequest,
            range(len(heads)),
            heads,
            part="test",
            background_id=background.background_id,
            background=background.embeddings,
            background_present=background.present,
        )
        return sums[SIZE_SUMS]

    def _ask(
        self,
        request: type[WholeModelRequest],
        numbers: Sequence[int],
        heads: Float64[np.ndarray, "refit column"],
        *,
        part: Part,
        **fields: Any,
    ) -> Sums:
        parts: list[Sums] = []
        most = refits_in_message(heads.shape[1] - 1)
        for start in range(0, len(numbers), most):
            refits, chosen = tuple(numbers[start : start + most]), {"heads": heads[start : start + most]}
            answers = self._model.ask(request, part=part, refits=refits, heads=chosen, **fields)
            if answers.attendance.answered != self._answered:
                others = ", ".join(sorted(set(answers.attendance.answered) ^ set(self._answered)))
                raise _LeftOutError(f"not the hospitals answered that were explained; differing: {others}")
            parts.append(answers.sums)
        return {name: np.concatenate([sums[name] for sums in parts]) for name in parts[0]}


def _reason_against(plan: StudyPlan, width: int) -> str:
    """Why the head is not refitted; empty if it is."""
    if not plan.settings.share_refits:
        return "share-refits=0"
    if plan.deployed and not plan.settings.trust_coordinator:
        return "refits need trust-coordinator=true: from so many sums a coordinator could compute single patients"
    if not is_refitted(plan.settings):
        return "only a model that ends with Newton's steps of a common linear head is refitted"
    if width > MOST_COLUMNS:
        return f"the head has {width} columns; up to {MOST_COLUMNS} are refitted"
    return ""


def _none(reason: str, n_modalities: int) -> ShareRefits:
    return ShareRefits(np.empty((0, n_modalities)), np.zeros(n_modalities, dtype=bool), reason)


def _size(penalty: Float64[np.ndarray, "column"], head: Float64[np.ndarray, "column"]) -> float:
    return float(penalty @ np.square(head)) / 2
