"""A training round at the hospital: validate the global model, train it on local patients, return the change."""

from dataclasses import replace

import numpy as np
import torch

from client.outbound import Gate
from client.site import Site
from client.worker.drift_control import open_control
from client.worker.local_model import LocalModel, embedding_key, open_local_model
from client.worker.run_state import NeedsWeightsError, RunState
from client.worker.seen_patients import note_patients
from shared_model.config import Settings
from shared_model.errors import ProtocolError
from shared_model.evaluation.score_quantities import pack_scores
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.protocol.messages import SumsReply, TrainRequest
from shared_model.training.epochs import (
    Encoded,
    Objective,
    Source,
    build_optimiser,
    learning_rates,
    predict_logits,
    prepare_phase,
    seeded_rng,
    shuffled_batches,
    train_one_epoch,
)
from shared_model.training.losses import logit_correction
from shared_model.training.newton import newton_sums
from shared_model.training.newton_rules import uses_newton
from shared_model.training.updates import Counts, count_patients, hash_weights, pack_update, to_arrays


def answer_train(site: Site, settings: Settings, request: TrainRequest, gate: Gate) -> SumsReply:
    """One round of local training.

    Raises:
        NeedsWeightsError: the phase needs weights that it does not train, and they did not come.
        ProtocolError: the weights do not fit the model, or the update is not finite.
        SuppressedError: too few patients.
    """
    local = open_local_model(site, settings, request)
    note_patients(site, settings, request.study.run_id)
    state = RunState.of(site.state_dir, request.study.run_id)
    local.load(request.weights, local.model.travelling_in(request.phase))
    validation, source = _open_sources(local, request, state)
    scores = ScoreSums.from_scores(
        predict_logits(local.model, validation, phase=request.phase, correction=logit_correction(request.event_weight)),
        site.patients.outcome[local.split.val],
    )
    counts = _count_patients(local, settings)
    if uses_newton(settings, request.phase):
        patients = without_rare(source(np.arange(len(local.split.train))), least=gate.rule.min_patients)
        learned = newton_sums(local.model, patients, event_weight=request.event_weight)
    else:
        learned = _train_locally(local, source, settings=settings, request=request, counts=counts, state=state)
    arrays = {**learned, **counts, **pack_scores(scores)}
    released = gate.release_sums(arrays, n_patients=len(local.split.train))
    # After the gate: what diverged is refused there, and must not be what the next round starts from.
    state.save_home(local.model, request.phase, after_round=request.round_number + 1)
    return SumsReply(arrays=released)


def without_rare(encoded: Encoded, *, least: int) -> Encoded:
    """Patients as if nobody had a modality that fewer than `least` have: second moments of a few would show them."""
    present = {name: here & (here.sum() >= least) for name, here in encoded.present.items()}
    return replace(encoded, present=present)


def _count_patients(local: LocalModel, settings: Settings) -> dict[str, np.ndarray]:
    train, counted = local.split.train, settings.counted_modalities(local.site.schema)
    present = {name: local.site.patients.present[name][train] for name in counted}
    return count_patients(present, n=len(train), counted=counted)


def _open_sources(local: LocalModel, request: TrainRequest, state: RunState) -> tuple[Encoded, Source]:
    """The validation part's embeddings, and the source of the training part's.

    What frozen encoders make of the patients comes from a file after the first round: in phase `fusion` all of it, so
    a round needs no encoder; elsewhere the images whose encoders stay fixed.
    """
    split, needed = local.split, frozenset(local.model.frozen_in(request.phase))
    frozen = local.model.frozen_encoders(request.phase)
    if not frozen:
        _load_frozen(local, request, state, needed=needed)
        return local.encode_all(split.val), local.encoding_source(split.train)
    weights = (request.networks_sha256, request.frozen_sha256)
    key = embedding_key(local.site, local.preprocessing, encoders=frozen, weights=weights)
    train = state.load_embeddings("train", key, device=local.device)
    val = state.load_embeddings("val", key, device=local.device)
    if train is not None and val is not None:
        encoded = tuple(f"encoders.{name}." for name in frozen)
        _load_frozen(local, request, state, needed=frozenset(n for n in needed if not n.startswith(encoded)))
    else:
        local.load_networks(request.networks)
        _load_frozen(local, request, state, needed=needed)
        train, val = local.encode_all(split.train).only(frozen), local.encode_all(split.val).only(frozen)
        state.save_embeddings("train", key, train)
        state.save_embeddings("val", key, val)
    if set(frozen) == set(local.model.modalities):
        return val, train.select
    return local.encode_all(split.val, val.embeddings), local.encoding_source(split.train, train.embeddings)


def _load_frozen(local: LocalModel, request: TrainRequest, state: RunState, *, needed: frozenset[str]) -> None:
    """Put what the phase needs and does not travel into the model: what came along, then what this hospital keeps."""
    if request.frozen:
        if hash_weights(request.frozen) != request.frozen_sha256:
            raise ProtocolError("frozen weights: expected the hash that the question names, got another.")
        local.load(request.frozen, local.model.frozen_in(request.phase))
    own = state.load_home(local.model, before_round=request.weights_round, discarded=request.discarded)
    if not request.frozen and not needed <= own:
        raise NeedsWeightsError("frozen weights: not held here. Send them with the question.")


def _train_locally(
    local: LocalModel,
    source: Source,
    *,
    settings: Settings,
    request: TrainRequest,
    counts: Counts,
    state: RunState,
) -> dict[str, np.ndarray]:
    """Train in place; returns the update, and the sum over patients of the last epoch's loss."""
    parameters = prepare_phase(local.model, request.phase)
    objective = Objective(
        phase=request.phase,
        event_weight=request.event_weight,
        proximal_mu=settings.proximal_mu if settings.strategy == "fedprox" else 0.0,
        anchor={name: parameters[name].detach().clone() for name in parameters if name in request.weights},
    )
    optimiser = build_optimiser(local.model, parameters, settings, n_train=local.preprocessing.n)
    rng = seeded_rng(settings.seed, local.site.name, request.phase, request.round_number)
    torch.manual_seed(int(rng.integers(2**31)))  # dropout
    control = open_control(request, state) if settings.strategy == "scaffold" else None
    corrections = control.as_tensors(local.device) if control else {}
    loss_sum, n_steps = 0.0, 0
    for _ in range(settings.local_epochs):
        batches = list(shuffled_batches(len(local.split.train), batch_size=settings.batch_size, rng=rng))
        n_steps += len(batches)
        loss_sum = train_one_epoch(
            local.model,
            source,
            iter(batches),
            optimiser=optimiser,
            objective=objective,
            max_gradient_norm=settings.max_gradient_norm,
            corrections=corrections,
        )
    after = to_arrays(local.model.state_dict(), request.weights)
    arrays = {**pack_update(request.weights, after, counts=counts), "train-loss-sum": np.array(loss_sum)}
    if control:
        rates = learning_rates(optimiser, parameters)
        arrays |= control.advance(request, state, after=after, rates=rates, n_steps=n_steps, counts=counts)
    return arrays
