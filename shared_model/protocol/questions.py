"""The questions of a study, one row each: what is asked, what a reply may hold, and how it is checked.

Both sides read this table. A hospital's gate (client/outbound.py) lets out what a question's `quantities` list; the
coordinator's reducer (server/protocol/reduce.py) adds nothing else. A new question is a row here, its request in
messages.py, a function that answers it (client/worker/answering.py), and a step that asks it (server/protocol).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from shared_model.config import Settings
from shared_model.evaluation.score_quantities import score_quantities, unpack_scores
from shared_model.model.fusion import MultimodalModel, empty_model
from shared_model.model.image_components import component_quantities
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.preprocessing.statistics import statistics_quantities
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol import messages
from shared_model.protocol.messages import (
    EvaluateReply,
    EvaluateRequest,
    ExplainReply,
    ExplainRequest,
    HandshakeReply,
    HandshakeRequest,
    Message,
    Part,
    QualityReply,
    QualityRequest,
    Request,
    SpreadRequest,
    StatisticsRequest,
    SumsReply,
    TrainRequest,
)
from shared_model.protocol.own_rows import Row, check_row_counts, parse_metrics, parse_shares
from shared_model.protocol.quantities import MASKED, Arrays, Quantities
from shared_model.protocol.refit_messages import RefitRequest, SizesRequest
from shared_model.protocol.sum_messages import (
    ConfirmReply,
    ConfirmRequest,
    KeysRequest,
    Offer,
    OpenReply,
    OpenRequest,
    SharesReply,
    SharesRequest,
    TextsReply,
    TextsRequest,
)
from shared_model.quality.checks import QualityReport, parse_report
from shared_model.quality.measures import reference_quantities
from shared_model.schema import Schema
from shared_model.shapley.common_background import background_quantities
from shared_model.shapley.explanation_quantities import explanation_quantities, spread_quantities
from shared_model.shapley.summary import check_sums
from shared_model.shapley.valid_rows import embedding_columns
from shared_model.training.newton import HEAD_WEIGHT, newton_quantities
from shared_model.training.newton_rules import uses_newton
from shared_model.training.refits import refit_quantities, size_quantities
from shared_model.training.scaffold import control_quantities
from shared_model.training.updates import check_reply, round_quantities


def _no_sums(request: Request, schema: Schema, settings: Settings) -> Quantities:  # noqa: ARG001
    return {}


@dataclass(frozen=True)
class Question:
    """One row of the protocol.

    Attributes:
        kind: of the message.
        request: its type.
        reply: type of the answer.
        quantities: the arrays that the answer adds to a total, from the request, the schema and the settings, which
            both sides hold; none where it has no sums.
        agrees: raises a ProtocolError where arrays that are well formed contradict each other.
        own: what a reply tells of its one hospital, checked; raises a ProtocolError.
        part: the only part of the patients that may be asked about; None where the request names one, or none.
        second_moments: the answer holds sums of products, from which few patients could be computed.
        in_simulations: from all answers single patients could be computed: for simulations, and hospitals that trust.
    """

    kind: str
    request: type[Request]
    reply: type[Message] = SumsReply
    quantities: Callable[[Any, Schema, Settings], Quantities] = _no_sums
    agrees: Callable[[Arrays], object] | None = None
    own: Callable[[Any, Schema, Settings], object] | None = None
    part: Part | None = None
    second_moments: bool = False
    in_simulations: bool = False

    @property
    def has_sums(self) -> bool:
        """True if answers are added."""
        return self.quantities is not _no_sums


def _reference_sums(request: Request, schema: Schema, settings: Settings) -> Quantities:  # noqa: ARG001
    return reference_quantities(schema, settings.chosen_modalities(schema))


def _statistics_sums(request: StatisticsRequest, schema: Schema, settings: Settings) -> Quantities:  # noqa: ARG001
    return statistics_quantities(schema, first=not request.totals)


def _component_sums(request: Request, schema: Schema, settings: Settings) -> Quantities:  # noqa: ARG001
    return component_quantities(_shape(schema, settings).image_features())


def _train_sums(request: TrainRequest, schema: Schema, settings: Settings) -> Quantities:
    """What trains decides: Newton's gradient and Hessian, or the update of every weight, with SCAFFOLD's controls."""
    counted = settings.counted_modalities(schema)
    if uses_newton(settings, request.phase):
        width = request.weights[HEAD_WEIGHT].shape[1]
        return {**newton_quantities(width), **round_quantities({}, counted=counted)}
    quantities = dict(round_quantities(request.weights, counted=counted))
    if settings.strategy == "scaffold":
        quantities |= control_quantities(request.weights)
    return quantities


def _score_sums(request: Request, schema: Schema, settings: Settings) -> Quantities:  # noqa: ARG001
    return score_quantities()


def _background_sums(request: Request, schema: Schema, settings: Settings) -> Quantities:  # noqa: ARG001
    return background_quantities(embedding_columns(_shape(schema, settings), schema))


def _explanation_sums(request: ExplainRequest, schema: Schema, settings: Settings) -> Quantities:
    return explanation_quantities(
        _shape(schema, settings),
        schema,
        settings,
        preprocessing=Preprocessing.from_json(request.preprocessing),
        features=request.features,
    )


def _spread_sums(request: SpreadRequest, schema: Schema, settings: Settings) -> Quantities:  # noqa: ARG001
    return spread_quantities(len(settings.chosen_modalities(schema)))


def _refit_sums(request: RefitRequest, schema: Schema, settings: Settings) -> Quantities:
    return refit_quantities(len(request.refits), width=sum(_shape(schema, settings).widths.values()))


def _size_sums(request: SizesRequest, schema: Schema, settings: Settings) -> Quantities:
    return size_quantities(len(request.refits), n_modalities=len(settings.chosen_modalities(schema)))


def _as_it_is(reply: Message, schema: Schema, settings: Settings) -> Message:  # noqa: ARG001
    return reply


def _own_report(reply: QualityReply, schema: Schema, settings: Settings) -> QualityReport | None:  # noqa: ARG001
    return parse_report(reply.row, schema)


def _own_metrics(reply: EvaluateReply, schema: Schema, settings: Settings) -> Row:  # noqa: ARG001
    row = parse_metrics(reply.row, SmallCellRule.of(settings))
    _check_counts(row, reply, prefix="score/")
    return row


def _own_shares(reply: ExplainReply, schema: Schema, settings: Settings) -> Row:
    row = parse_shares(reply.row, SmallCellRule.of(settings), settings.chosen_modalities(schema))
    _check_counts(row, reply)
    return row


def _check_counts(row: Row, reply: SumsReply, *, prefix: str = "") -> None:
    if MASKED not in reply.arrays:  # of masked sums the row cannot be told
        check_row_counts(row, reply.arrays, prefix=prefix)


def _shape(schema: Schema, settings: Settings) -> MultimodalModel:
    """The study's model without weights: names, widths and shapes."""
    return empty_model(schema, settings, device=torch.device("meta"))


_OF_SUMS: tuple[tuple[str, type[Request], type[Message]], ...] = (
    (messages.KEYS, KeysRequest, Offer),
    (messages.SHARES, SharesRequest, SharesReply),
    (messages.TEXTS, TextsRequest, TextsReply),
    (messages.CONFIRM, ConfirmRequest, ConfirmReply),
    (messages.OPEN, OpenRequest, OpenReply),
)
_TABLE = (
    # The handshake is refused for second moments that come later, so that a hospital is not lost in the last step.
    Question(messages.HANDSHAKE, HandshakeRequest, HandshakeReply, own=_as_it_is, second_moments=True),
    Question(messages.REFERENCE, messages.ReferenceRequest, quantities=_reference_sums),
    Question(messages.QUALITY, QualityRequest, QualityReply, own=_own_report),
    Question(messages.STATISTICS, StatisticsRequest, quantities=_statistics_sums),
    Question(messages.COMPONENTS, messages.ComponentsRequest, quantities=_component_sums, part="train"),
    Question(messages.TRAIN, TrainRequest, quantities=_train_sums, agrees=check_reply, second_moments=True),
    Question(
        messages.EVALUATE,
        EvaluateRequest,
        EvaluateReply,
        quantities=_score_sums,
        agrees=unpack_scores,
        own=_own_metrics,
    ),
    Question(
        messages.BACKGROUND,
        messages.BackgroundRequest,
        quantities=_background_sums,
        part="train",
        second_moments=True,
    ),
    Question(
        messages.EXPLAIN, ExplainRequest, ExplainReply, quantities=_explanation_sums, agrees=check_sums, own=_own_shares
    ),
    Question(messages.SPREAD, SpreadRequest, quantities=_spread_sums),
    Question(messages.REFIT, RefitRequest, quantities=_refit_sums, part="train", in_simulations=True),
    *(Question(kind, request, reply, own=_as_it_is) for kind, request, reply in _OF_SUMS),
    Question(messages.SIZES, SizesRequest, quantities=_size_sums, part="test", in_simulations=True),
)
QUESTIONS: Mapping[str, Question] = {question.kind: question for question in _TABLE}
_BY_REQUEST = {question.request: question for question in _TABLE}


def find_question(request: Request) -> Question:
    """The row of a request."""
    return _BY_REQUEST[type(request)]
