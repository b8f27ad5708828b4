"""A message of each type."""

from typing import Any

import numpy as np

from shared_model.protocol.messages import (
    BackgroundRequest,
    ComponentsRequest,
    EvaluateReply,
    EvaluateRequest,
    ExplainReply,
    ExplainRequest,
    HandshakeReply,
    HandshakeRequest,
    Message,
    QualityReply,
    QualityRequest,
    ReferenceRequest,
    Refusal,
    SpreadRequest,
    StatisticsRequest,
    StudyReference,
    SumsReply,
    TrainRequest,
)
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

STUDY = StudyReference(
    run_id="a1b2",
    protocol=1,
    schema_sha256="0f" * 32,
    settings={"seed": 3, "learning-rate": 0.1 + 0.2, "local-norm": True, "head": ""},
)
WEIGHTS = {
    "head.weight": np.array([[0.1, -0.0], [5e-45, 3e38]], dtype=np.float32),
    "head.bias": np.zeros((0,), dtype=np.float32),
}
SUMS = {"n": np.array(12.0), "histogram": np.arange(6).reshape(2, 3)}
WHOLE_MODEL: dict[str, Any] = {
    "study": STUDY,
    "phase": "joint",
    "weights_round": 4,
    "discarded": ((2, 3),),
    "preprocessing": "{}",
    "event_weight": 1.0,
    "networks_sha256": "ee" * 32,
    "weights_sha256": "cd" * 32,
}
BACKGROUND_ROWS: dict[str, Any] = {
    "background_id": "ef" * 32,
    "background": {"static": np.ones((2, 3), dtype=np.float32)},
    "background_present": {"static": np.array([True, False])},
}
HEADS = {"heads": np.array([[0.1 + 0.2, -1.0], [5e-324, 2.0]])}
OFFER = Offer(channel="ab" * 32, rounds=("cd" * 32,), seeds=("ef" * 32,), signature="01" * 64)
EXAMPLES: tuple[Message, ...] = (
    HandshakeRequest(study=STUDY),
    HandshakeReply(site="Göteborg, site 3", version="0.1.0", modalities=["static", "hip"]),
    StatisticsRequest(study=STUDY),
    SumsReply(arrays=SUMS),
    TrainRequest(
        study=STUDY,
        phase="fusion",
        round_number=7,
        weights_round=6,
        preprocessing='{"n": 1}',
        event_weight=1 / 3,
        networks_sha256="0" * 64,
        frozen_sha256="ab" * 32,
        weights=WEIGHTS,
        frozen={},
    ),
    ComponentsRequest(**WHOLE_MODEL, part="train", weights=WEIGHTS),
    EvaluateRequest(**WHOLE_MODEL, part="test", release_row=True, weights=WEIGHTS),
    EvaluateReply(row='{"suppressed": true}', arrays=SUMS),
    BackgroundRequest(**WHOLE_MODEL, part="train", weights=WEIGHTS),
    ExplainRequest(**WHOLE_MODEL, part="test", **BACKGROUND_ROWS, features=True, release_row=False),
    SpreadRequest(**WHOLE_MODEL, part="val", **BACKGROUND_ROWS, tau2=(0.1 + 0.2, 0.0)),
    RefitRequest(**WHOLE_MODEL, part="train", refits=(0, 7), heads=HEADS),
    SizesRequest(**WHOLE_MODEL, part="test", **BACKGROUND_ROWS, refits=(0, 7), heads=HEADS),
    ExplainReply(row='{"suppressed": true}', arrays=SUMS),
    ReferenceRequest(study=STUDY),
    QualityRequest(study=STUDY, n_sites=3, reference=SUMS),
    QualityReply(row='{"suppressed": true}'),
    Refusal(site="north", code="needs-weights", reason="not held here"),
    KeysRequest(study=STUDY, purpose="run 1", members={"north": "ab" * 32}, threshold=3, rounds=2, colluding=1),
    OFFER,
    SharesRequest(study=STUDY, session="cd" * 32, offers={"north": OFFER}),
    SharesReply(texts={"Göteborg, site 3": "00ff"}),
    TextsRequest(study=STUDY, session="cd" * 32, texts=(("north", "00ff"),)),
    TextsReply(),
    ConfirmRequest(study=STUDY, session="cd" * 32, round=1, answered=("north", "south")),
    ConfirmReply(signature="ab" * 64),
    OpenRequest(
        study=STUDY, session="cd" * 32, round=1, answered=("north", "south"), confirmations={"north": "ab" * 64}
    ),
    OpenReply(own_masks={"north": "ab" * 32}, lost_keys={"south": "cd" * 32}),
)
