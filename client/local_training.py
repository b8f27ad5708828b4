"""A training round at the hospital: validate the global model, train it on local patients, return the change."""

from __future__ import annotations

import numpy as np
import torch

from client.local_model import LocalModel, embedding_key, open_local_model
from client.outbound import Gate
from client.run_state import NeedsWeightsError, RunState
from client.site import Site
from shared_model.config import Settings
from shared_model.errors import ProtocolError
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
from shared_model.updates import count_patients, hash_weights, pack_update, round_quantities, to_arrays


def answer_train(site: Site, settings: Settings, request: TrainRequest, gate: Gate) -> SumsReply:
    """One round of local training.

    Raises:
        NeedsWeightsError: the phase needs weights that it does not train, and they did not come.
        ProtocolError: the weights do not fit the model, or the update is not finite.
        SuppressedError: too few patients.
    """
    local = open_local_model(site, settings, preprocessing=request.preprocessing)
    state = RunState.of(site.state_dir, request.study.run_id)
    local.load(request.weights, local.model.travelling_in(request.phase, local_norm=settings.local_norm))
    validation, source = _open_sources(local, settings, request, state)
    scores = ScoreSums.from_scores(
        predict_logits(local.model, validation, phase=request.phase, correction=logit_correction(request.event_weight)),
        site.patients.outcome[local.split.val],
    )
    loss_sum = _train_locally(local, source, settings=settings, request=request)
    if settings.local_norm and request.phase != "fusion":
        state.save_norms(local.model, after_round=request.round_number + 1)
    n, counted = len(local.split.train), settings.counted_modalities(site.schema)
    present = {name: site.patients.present[name][local.split.train] for name in counted}
    counts = count_patients(present, n=n, counted=counted)
    arrays = {
        **pack_update(request.weights, to_arrays(local.model.state_dict(), request.weights), counts=counts),
        **counts,
        "train-loss-sum": np.array(loss_sum),
        **pack_scores(scores),
    }
    quantities = round_quantities(request.weights, counted=counted)
    return SumsReply(arrays=gate.release_sums(TRAIN, arrays, quantities, n_patients=n))


def _open_sources(
    local: LocalModel, settings: Settings, request: TrainRequest, state: RunState
) -> tuple[Encoded, Source]:
    """The validation part's embeddings, and the source of the training part's.

    With frozen encoders both come from a file after the first round: then a round needs no image and no encoder.
    """
    split = local.split
    if request.phase != "fusion":
        _load_frozen(local, settings, request, state)
        return local.encode_all(split.val), local.encoding_source(split.train)
    key = embedding_key(local.site, local.preprocessing, request.frozen_sha256)
    train = state.load_embeddings("train", key, device=local.device)
    val = state.load_embeddings("val", key, device=local.device)
    if train is None or val is None:
        _load_frozen(local, settings, request, state)
        train, val = local.encode_all(split.train), local.encode_all(split.val)
        state.save_embeddings("train", key, train)
        state.save_embeddings("val", key, val)
    return val, train.select


def _load_frozen(local: LocalModel, settings: Settings, request: TrainRequest, state: RunState) -> None:
    """Put what the phase needs and does not train into the model."""
    needed = local.model.frozen_in(request.phase, local_norm=settings.local_norm)
    if request.frozen:
        if hash_weights(request.frozen) != request.frozen_sha256:
            raise ProtocolError("frozen weights: expected the hash that the question names, got another.")
        local.load(request.frozen, needed)
    own_norms = settings.local_norm and state.load_norms(
        local.model, before_round=request.weights_round, discarded=request.discarded
    )
    # Where only BatchNorm is frozen, the hospital's own is all that is missing.
    enough = request.frozen or not needed or (own_norms and request.phase != "fusion")
    if not enough:
        raise NeedsWeightsError("frozen weights: not held here. Send them with the question.")


def _train_locally(local: LocalModel, source: Source, *, settings: Settings, request: TrainRequest) -> float:
    """Train in place; returns the sum over patients of the last epoch's loss."""
    parameters = prepare_phase(local.model, request.phase)
    objective = Objective(
        phase=request.phase,
        event_weight=request.event_weight,
        proximal_mu=settings.proximal_mu if settings.strategy == "fedprox" else 0.0,
        anchor={name: parameter.detach().clone() for name, parameter in parameters.items()},
    )
    optimiser = build_optimiser(local.model, parameters, settings, n_train=local.preprocessing.n)
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
