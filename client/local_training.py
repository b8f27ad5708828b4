"""A training round at the hospital: validate the global model, train it on local patients, return the change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from client.model_store import ModelStore
from client.outbound import Gate
from client.site import Site
from shared_model.batch import Batch
from shared_model.config import Settings
from shared_model.fusion import MultimodalModel, build_model
from shared_model.losses import logit_correction
from shared_model.messages import TRAIN, SumsReply, TrainRequest
from shared_model.preprocessing import Preprocessing
from shared_model.score_quantities import pack_scores
from shared_model.score_sums import ScoreSums
from shared_model.splits import Split
from shared_model.training import (
    Encoded,
    Objective,
    Rows,
    Source,
    build_optimiser,
    choose_device,
    encode,
    encode_all,
    predict_logits,
    prepare_phase,
    seeded_rng,
    shuffled_batches,
    train_one_epoch,
)
from shared_model.updates import hash_weights, pack_update, round_quantities, to_arrays, to_tensors


@dataclass(frozen=True)
class LocalData:
    """The hospital's patients, ready to be fed to the model."""

    site: Site
    settings: Settings
    preprocessing: Preprocessing
    device: torch.device

    @property
    def split(self) -> Split:
        """Training, validation and test rows."""
        return self.site.split(self.settings)

    def encoded(self, model: MultimodalModel, rows: Rows) -> Encoded:
        """Embeddings in eval mode."""
        return encode_all(model, self._batch, rows, device=self.device)

    def source(self, model: MultimodalModel, rows: Rows) -> Source:
        """Embeddings of some of `rows`, computed afresh with gradients."""
        return lambda chosen: encode(model, self._batch(rows[chosen]), device=self.device)

    def _batch(self, rows: Rows) -> Batch:
        return self.preprocessing.batch(self.site.patients, rows, schema=self.site.schema, device=self.device)


def answer_train(site: Site, settings: Settings, request: TrainRequest, gate: Gate) -> SumsReply:
    """One round of local training.

    Raises:
        NeedsFrozenWeightsError: the encoders are frozen and this hospital does not hold them.
        ProtocolError: the weights do not fit the model, or the update is not finite.
        SuppressedError: too few patients.
    """
    torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    data = LocalData(site, settings, Preprocessing.from_json(request.preprocessing), device)
    store = ModelStore(site.state_dir)
    model = build_model(site.schema, settings).to(device, memory_format=torch.channels_last)
    frozen = store.frozen_weights(request.frozen_sha256, request.frozen)
    store.check_fits(model, {**frozen, **request.weights})
    model.load_state_dict(to_tensors({**frozen, **request.weights}), strict=False)
    if settings.local_norm:
        store.load_norms(model, request.study.run_id, before_round=request.round_number)
    parameters = prepare_phase(model, request.phase)
    split = data.split

    if request.phase == "fusion":
        key = hash_weights(frozen) + request.preprocessing + str(settings.to_config())
        encoded = {
            part: store.embeddings(f"{part}{key}", lambda rows=rows: data.encoded(model, rows), device=device)
            for part, rows in (("train", split.train), ("val", split.val))
        }
        validation = encoded["val"]
        source: Source = encoded["train"].select
    else:
        validation = data.encoded(model, split.val)
        source = data.source(model, split.train)

    correction = logit_correction(request.event_weight)
    scores = ScoreSums.from_scores(
        predict_logits(model, validation, phase=request.phase, correction=correction),
        site.patients.outcome[split.val],
    )
    loss_sum = _train_locally(
        model, parameters, source, n=len(split.train), site=site, settings=settings, request=request
    )
    after = to_arrays(model.state_dict(), request.weights)
    if settings.local_norm:
        store.save_norms(model, request.study.run_id, after_round=request.round_number + 1)
    arrays = {
        **pack_update(request.weights, after, n=len(split.train)),
        "n-train": np.array(float(len(split.train))),
        "train-loss-sum": np.array(loss_sum),
        **pack_scores(scores),
    }
    released = gate.release_sums(TRAIN, arrays, round_quantities(request.weights), n_patients=len(split.train))
    return SumsReply(arrays=released)


def _train_locally(
    model: MultimodalModel,
    parameters: dict[str, torch.nn.Parameter],
    source: Source,
    *,
    n: int,
    site: Site,
    settings: Settings,
    request: TrainRequest,
) -> float:
    """Train in place; returns the sum over patients of the last epoch's loss."""
    objective = Objective(
        phase=request.phase,
        event_weight=request.event_weight,
        proximal_mu=settings.proximal_mu if settings.strategy == "fedprox" else 0.0,
        anchor={name: parameter.detach().clone() for name, parameter in parameters.items()},
    )
    optimiser = build_optimiser(parameters.values(), settings)
    rng = seeded_rng(settings.seed, site.name, request.phase, request.round_number)
    torch.manual_seed(int(rng.integers(2**31)))  # dropout
    loss_sum = 0.0
    for _ in range(settings.local_epochs):
        loss_sum = train_one_epoch(
            model,
            source,
            shuffled_batches(n, batch_size=settings.batch_size, rng=rng),
            optimiser=optimiser,
            objective=objective,
            max_gradient_norm=settings.max_gradient_norm,
        )
    return loss_sum
