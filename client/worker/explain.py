"""Explaining a model at the hospital: sums for the common background, and sums of its patients' Shapley values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from client.outbound import Gate
from client.site import Site
from client.worker.local_model import GivenModel, embedding_key, open_given_model
from client.worker.local_training import without_rare
from client.worker.run_state import RunState
from shared_model.config import Settings
from shared_model.errors import ProtocolError
from shared_model.modalities.registry import open_modality
from shared_model.model.fusion import empty_model
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.protocol.messages import (
    BackgroundRequest,
    ExplainReply,
    ExplainRequest,
    SpreadRequest,
    SumsReply,
)
from shared_model.protocol.refit_messages import SizesRequest
from shared_model.shapley.checked import explain_checked
from shared_model.shapley.common_background import background_sums, hash_background
from shared_model.shapley.exact import ModalityValues
from shared_model.shapley.explanation_quantities import site_row
from shared_model.shapley.feature_values import affordable_patients, attribute_features, sum_features
from shared_model.shapley.features import list_features
from shared_model.shapley.game import Background, FusionGame, Rows, as_rows
from shared_model.shapley.shares import Shares, between_sums, share_of_means
from shared_model.shapley.strata import stratum_members
from shared_model.shapley.summary import Sums, modality_sums
from shared_model.shapley.valid_rows import embedding_columns, known_columns
from shared_model.training.epochs import seeded_rng
from shared_model.training.losses import logit_correction

_OF_SHARES = ("n", "abs", "outer")  # of the sums of modality values, what shares are made of
PART_OF_DEADLINE = 4  # the features of all patients should take no more than this part of the question's deadline


def answer_background(site: Site, settings: Settings, request: BackgroundRequest, gate: Gate) -> SumsReply:
    """Sums of the training patients' embeddings; who has a modality that few have counts as lacking it.

    Raises:
        NeedsWeightsError: the weights did not come and are not kept.
        SuppressedError: too few patients.
    """
    given = open_given_model(site, settings, request)
    # As in training: sums of a few patients' rows, and of their products, would show them.
    encoded = without_rare(given.encoded, least=gate.rule.min_patients)
    columns = embedding_columns(given.local.model, site.schema)
    embeddings = {name: value.float().cpu().numpy() for name, value in encoded.embeddings.items()}
    sums = background_sums(
        columns,
        embeddings=embeddings,
        present={name: value.cpu().numpy() for name, value in encoded.present.items()},
        known=known_columns(embeddings, site.schema),
        levels={name: index for found in level_indices(site, given).values() for name, index in found.items()},
    )
    return SumsReply(arrays=gate.release_sums(sums, n_patients=len(given.rows)))


def answer_explain(site: Site, settings: Settings, request: ExplainRequest, gate: Gate) -> ExplainReply:
    """Sums of the Shapley values of one part, and the hospital's own shares where its small-cell rule lets it.

    Raises:
        NeedsWeightsError: the weights did not come and are not kept.
        ProtocolError: the background is not the one that the question names.
        StudyError: values do not add up to the model's predictions.
        SuppressedError: too few patients.
    """
    explained = _explain(site, settings, request)
    model = explained.given.local.model
    sums = _modality_sums(site, settings, explained)
    kept = {name: sums[name] for name in _OF_SHARES}
    RunState.of(site.state_dir, request.study.run_id).save_sums(_sums_key(site, settings, request), kept)
    if request.features:
        sums |= _feature_sums(site, settings, explained)
    shares = _own_shares(sums, gate)
    sums |= between_sums(shares, tau2=np.zeros(len(model.modalities)))
    arrays = gate.release_sums(sums, n_patients=len(site.patients))
    n, events = (int(sums["n"][0]), int(sums["events"][0])) if request.release_row else (0, 0)
    row = site_row(model.modalities, sums, shares)
    return ExplainReply(arrays=arrays, row=gate.release_row(row, n=n, events=events))


def _feature_sums(site: Site, settings: Settings, explained: _Explained) -> Sums:
    """Sums of feature values; where all patients would take too long, of a sample of them that the seed draws."""
    given = explained.given
    features = list_features(given.local.model, site.schema, given.local.preprocessing)
    most = affordable_patients(
        explained.game,
        features=features,
        n_background=len(explained.background.rows),
        seconds=settings.deadline_s / PART_OF_DEADLINE,
    )
    order = seeded_rng(settings.seed, site.name, "features").permutation(len(given.rows))
    chosen = np.sort(order[:most])
    patients = explained.patients.select(torch.from_numpy(chosen))
    seeds = sampling_seeds(site, settings, given.rows[chosen])
    tables = attribute_features(explained.game, patients, explained.background, features=features, seeds=seeds)
    levels = {
        name: {category: index[chosen] for category, index in found.items()}
        for name, found in level_indices(site, given).items()
    }
    return sum_features(tables, patients, features=features, levels=levels)


def sampling_seeds(site: Site, settings: Settings, rows: Int64[np.ndarray, "patient"]) -> list[str]:
    """Of each patient's feature sampling: the same patient has the same values whoever explains them."""
    return [f"{settings.seed}/{site.name}/{site.patients.patient_ids[row]}" for row in rows]


def answer_spread(site: Site, settings: Settings, request: SpreadRequest, gate: Gate) -> SumsReply:
    """The hospital's part of the random-effects statistics, from the sums that it made for `answer_explain`.

    Where it has none (it was asked nothing before, or its patients are others now) they are made again.

    Raises:
        As `answer_explain`.
    """
    n_modalities = len(settings.chosen_modalities(site.schema))
    if len(request.tau2) != n_modalities:
        raise ProtocolError(f"tau2: expected one number a modality ({n_modalities}), got {len(request.tau2)}.")
    own = RunState.of(site.state_dir, request.study.run_id).load_sums(_sums_key(site, settings, request))
    if own is None:
        own = _modality_sums(site, settings, _explain(site, settings, request))
    else:
        widths = empty_model(site.schema, settings, device=torch.device("meta")).widths
        read_background(request, widths, device=torch.device("cpu"))
    sums = between_sums(_own_shares(own, gate), tau2=np.asarray(request.tau2))
    return SumsReply(arrays=gate.release_sums(sums, n_patients=len(site.patients)))


@dataclass(frozen=True)
class _Explained:
    """Exact values of the patients in question, checked against the model's predictions."""

    given: GivenModel
    game: FusionGame
    patients: Rows
    background: Background
    values: ModalityValues
    additivity_error: Float64[np.ndarray, "patient"]


def _explain(site: Site, settings: Settings, request: ExplainRequest | SpreadRequest) -> _Explained:
    given = open_given_model(site, settings, request)
    model, device = given.local.model, given.local.device
    background = read_background(request, model.widths, device=device)
    game = FusionGame(model)
    patients = Rows(given.encoded.embeddings, given.encoded.present)
    correction = logit_correction(request.event_weight)
    values, error = explain_checked(game, model, given.encoded, background, phase=request.phase, correction=correction)
    return _Explained(given, game, patients, background, values, error)


def read_background(
    request: ExplainRequest | SpreadRequest | SizesRequest, widths: dict[str, int], *, device: torch.device
) -> Background:
    """The background of a question.

    Args:
        request: the question.
        widths: of the model's embeddings.
        device: where the rows go.

    Raises:
        ProtocolError: it does not fit the model, or is not the one that the question names.
    """
    _check_fits(widths, request)
    found = hash_background(request.weights_sha256, request.background, request.background_present)
    if found != request.background_id:
        raise ProtocolError(f"background: expected the id {request.background_id[:12]}, got {found[:12]}.")
    return Background(as_rows(request.background, request.background_present, device=device), found)


def _check_fits(widths: dict[str, int], request: ExplainRequest | SpreadRequest | SizesRequest) -> None:
    n = len(next(iter(request.background.values()), ()))
    shapes = {name: value.shape for name, value in request.background.items()}
    present = {name: value.shape for name, value in request.background_present.items()}
    if shapes != {name: (n, width) for name, width in widths.items()} or present != dict.fromkeys(widths, (n,)):
        raise ProtocolError("background: expected one embedding a modality of the model, got other arrays.")


def _modality_sums(site: Site, settings: Settings, explained: _Explained) -> Sums:
    rows = explained.given.rows
    return modality_sums(
        explained.values,
        members=_members(site, settings, explained),
        outcome=site.patients.outcome[rows].astype(np.float64),
        additivity_error=explained.additivity_error,
    )


def _sums_key(site: Site, settings: Settings, request: ExplainRequest | SpreadRequest) -> str:
    """Name of kept sums: the model, the patients and the background that they depend on."""
    of_model = (request.weights_sha256, request.weights_round, request.discarded, request.phase, request.event_weight)
    return embedding_key(
        site,
        Preprocessing.from_json(request.preprocessing),
        encoders=settings.chosen_modalities(site.schema),
        weights=(*of_model, request.part, request.background_id),
    )


def _members(site: Site, settings: Settings, explained: _Explained) -> Bool[np.ndarray, "stratum patient"]:
    return stratum_members(site.schema, settings, site.patients, explained.given.rows)


def _own_shares(sums: Sums, gate: Gate) -> Shares:
    """The hospital's shares; of too few patients without a variance, so that they do not enter the spread."""
    n = float(sums["n"][0])
    shares = share_of_means(n, sums["abs"][0], sums["outer"][0])
    if n < gate.rule.min_patients:
        return Shares(shares.share, np.full_like(shares.share, np.nan))
    return shares


def level_indices(site: Site, given: GivenModel) -> dict[str, Mapping[str, np.ndarray]]:
    """Per modality and category the index of each patient's level; the one after the last means missing."""
    return {
        name: open_modality(name, site.schema).level_indices(site.patients, given.rows)
        for name in given.local.model.modalities
    }
