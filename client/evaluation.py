"""Scoring a model on one part of the hospital's patients."""

from __future__ import annotations

import torch

from client.local_training import LocalData
from client.model_store import ModelStore
from client.outbound import Gate
from client.site import Site
from shared_model.config import Settings
from shared_model.fusion import build_model
from shared_model.losses import logit_correction
from shared_model.messages import EVALUATE, EvaluateReply, EvaluateRequest
from shared_model.metrics import summarise
from shared_model.preprocessing import Preprocessing
from shared_model.score_quantities import pack_scores, score_quantities
from shared_model.score_sums import ScoreSums
from shared_model.training import choose_device, predict_logits
from shared_model.updates import to_tensors


def answer_evaluate(site: Site, settings: Settings, request: EvaluateRequest, gate: Gate) -> EvaluateReply:
    """Score sums of one part, and the hospital's own row where its small-cell rule lets it.

    Raises:
        ProtocolError: the weights do not fit the model, or a score is not finite.
        SuppressedError: too few patients at the hospital.
    """
    torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    data = LocalData(site, settings, Preprocessing.from_json(request.preprocessing), device)
    model = build_model(site.schema, settings).to(device, memory_format=torch.channels_last)
    store = ModelStore(site.state_dir)
    store.check_fits(model, request.weights)
    model.load_state_dict(to_tensors(request.weights), strict=False)
    if settings.local_norm:
        store.load_norms(model, request.study.run_id, before_round=request.round_number)
    rows = getattr(data.split, request.part)
    logit = predict_logits(
        model,
        data.encoded(model, rows),
        phase=request.phase,
        correction=logit_correction(request.event_weight),
    )
    scores = ScoreSums.from_scores(logit, site.patients.outcome[rows])
    arrays = gate.release_sums(EVALUATE, pack_scores(scores), score_quantities(), n_patients=len(site.patients))
    metrics = summarise(scores)
    n, events = (metrics.n, metrics.events) if request.release_row else (0, 0)
    return EvaluateReply(arrays=arrays, row=gate.release_row(EVALUATE, metrics.to_dict(), n=n, events=events))
