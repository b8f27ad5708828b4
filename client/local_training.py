"""A training round at the hospital: validate the global model, train it on local patients, return the change."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from client.local_model import LocalModel, load_local_model
from client.model_store import ModelStore
from client.outbound import Gate
from client.site import Site
from shared_model.config import Settings
from shared_model.losses import logit_correction
from shared_model.messages import TRAIN, SumsReply, TrainRequest
from shared_model.score_quantities import pack_scores
from shared_model.score_sums import ScoreSums
from shared_model.training import (
    Encoded,
    Objective,
    Source,
    build_optimiser,
    predict_logits,
    prepare_phase,
    seeded_rng,
    shuffled_batches,
    train_one_epoch,
)
from shared_model.updates import pack_update, round_quantities, to_arrays


def answer_train(site: Site, settings: Settings, request: TrainRequest, gate: Gate) -> SumsReply:
    """One round of local training.

    Raises:
        NeedsFrozenWeightsError: some weights are frozen and this hospital does not hold them.
        ProtocolError: the weights do not fit the model, or the update is not finite.
        SuppressedError: too few patients.
    """
    store = ModelStore(site.state_dir)
    frozen = store.frozen_weights(request.frozen_sha256, request.frozen)
    local = load_local_model(
        site,
        settings,
        weights={**frozen, **request.weights},
        preprocessing=request.preprocessing,
        run_id=request.study.run_id,
        round_number=request.round_number,
    )
    validation, source = _open_sources(local, settings, request, store)
    scores = ScoreSums.from_scores(
        predict_logits(local.model, validation, phase=request.phase, correction=logit_correction(request.event_weight)),
        site.patients.outcome[local.split.val],
    )
    loss_sum = _train_locally(local, source, settings=settings, request=request)
    if settings.local_norm:
        store.save_norms(local.model, request.study.run_id, after_round=request.round_number + 1)
    n = len(local.split.train)
    arrays = {
        **pack_update(request.weights, to_arrays(local.model.state_dict(), request.weights), n=n),
        "n-train": np.array(float(n)),
        "train-loss-sum": np.array(loss_sum),
        **pack_scores(scores),
    }
    return SumsReply(arrays=gate.release_sums(TRAIN, arrays, round_quantities(request.weights), n_patients=n))


def _open_sources(
    local: LocalModel, settings: Settings, request: TrainRequest, store: ModelStore
) -> tuple[Encoded, Source]:
    """The validation part's embeddings, and the source of the training part's.

    With frozen encoders both come from a file after the first round: then a round needs no image.
    """
    split = local.split
    if request.phase != "fusion":
        return local.encode_all(split.val), local.encoding_source(split.train)
    depends_on = [request.frozen_sha256, request.preprocessing, str(sorted(settings.to_config().items()))]
    if settings.local_norm:
        depends_on.append(request.study.run_id)  # the encoders hold this run's own BatchNorm
    key = hashlib.sha256("\x1f".join(depends_on).encode()).hexdigest()
    encoded = {
        part: store.embeddings(part, key, lambda rows=rows: local.encode_all(rows), device=local.device)  # type: ignore[misc]
        for part, rows in (("train", split.train), ("val", split.val))
    }
    return encoded["val"], encoded["train"].select


def _train_locally(local: LocalModel, source: Source, *, settings: Settings, request: TrainRequest) -> float:
    """Train in place; returns the sum over patients of the last epoch's loss."""
    parameters = prepare_phase(local.model, request.phase)
    objective = Objective(
        phase=request.phase,
        event_weight=request.event_weight,
        proximal_mu=settings.proximal_mu if settings.strategy == "fedprox" else 0.0,
        anchor={name: parameter.detach().clone() for name, parameter in parameters.items()},
    )
    optimiser = build_optimiser(parameters, settings)
    rng = seeded_rng(settings.seed, local.site.name, request.phase, request.round_number)
    torch.manual_seed(int(rng.integers(2**31)))  # dropout
    loss_sum = 0.0
    for _ in range(settings.local_epochs):
        loss_sum = train_one_epoch(
            local.model,
            source,
            shuffled_batches(len(local.split.train), batch_size=settings.batch_size, rng=rng),
            optimiser=optimiser,
            objective=objective,
            max_gradient_norm=settings.max_gradient_norm,
        )
    return loss_sum
