"""Answers for refits of the head at the hospital: it draws how often each patient counts, and sends sums only."""

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from client.outbound import Gate
from client.site import Site
from client.worker.explain import read_background
from client.worker.local_model import GivenModel, open_given_model
from client.worker.local_training import without_rare
from shared_model.config import Settings
from shared_model.errors import ProtocolError
from shared_model.protocol.messages import SumsReply
from shared_model.protocol.refit_messages import RefitRequest, SizesRequest
from shared_model.training.newton import head_inputs
from shared_model.training.refits import (
    draw_counts,
    is_refitted,
    refit_sums,
    refits_in_message,
    size_sums,
)


def answer_refit(site: Site, settings: Settings, request: RefitRequest, gate: Gate) -> SumsReply:
    """Gradient, Hessian and loss of each refit over resampled patients of one part.

    Raises:
        NeedsWeightsError: the weights did not come and are not kept.
        ProtocolError: the model is not one whose head is refitted, or the heads do not fit it.
        SuppressedError: too few patients.
    """
    given = open_given_model(site, settings, request)
    heads = _read_heads(given, settings, request)
    # As in training: second moments of a few would show them.
    patients = without_rare(given.encoded, least=gate.rule.min_patients)
    sums = refit_sums(
        head_inputs(given.local.model, patients.embeddings, patients.present),
        patients.outcome.double(),
        _counts(site, settings, given, request),
        heads,
        event_weight=request.event_weight,
    )
    return SumsReply(arrays=gate.release_sums(sums, n_patients=len(given.rows)))


def answer_sizes(site: Site, settings: Settings, request: SizesRequest, gate: Gate) -> SumsReply:
    """Sums of |phi| of each refit over resampled patients of one part.

    Raises:
        NeedsWeightsError: the weights did not come and are not kept.
        ProtocolError: as `answer_refit`, or the background is not the one that the question names.
        SuppressedError: too few patients.
    """
    given = open_given_model(site, settings, request)
    model, heads = given.local.model, _read_heads(given, settings, request)
    background = read_background(request, model.widths, device=given.local.device).rows
    sums = size_sums(
        head_inputs(model, given.encoded.embeddings, given.encoded.present),
        head_inputs(model, background.embeddings, background.present),
        _counts(site, settings, given, request),
        heads,
        widths=list(model.widths.values()),
    )
    return SumsReply(arrays=gate.release_sums(sums, n_patients=len(site.patients)))


def _read_heads(
    given: GivenModel, settings: Settings, request: RefitRequest | SizesRequest
) -> Float64[Tensor, "refit column"]:
    if not is_refitted(settings):
        raise ProtocolError("refits: expected a model that ends with Newton's steps of a common linear head, got none.")
    width = sum(given.local.model.widths.values())
    heads = request.heads.get("heads", np.empty(0))
    n = len(request.refits)
    if set(request.heads) != {"heads"} or heads.shape != (n, width + 1) or heads.dtype != np.float64:
        raise ProtocolError(f"refits: expected {n} heads of {width + 1} numbers, got others.")
    if max(request.refits, default=0) > settings.share_refits:
        raise ProtocolError(f"refits: expected numbers up to {settings.share_refits} (share-refits), got a larger one.")
    if not 0 < n <= refits_in_message(width) or not np.isfinite(heads).all():
        raise ProtocolError(f"refits: expected up to {refits_in_message(width)} finite heads, got others.")
    return torch.from_numpy(heads).to(given.local.device)


def _counts(
    site: Site, settings: Settings, given: GivenModel, request: RefitRequest | SizesRequest
) -> Float64[Tensor, "refit patient"]:
    ids = [site.patients.patient_ids[row] for row in given.rows]
    counts = draw_counts(ids, request.refits, site=site.name, seed=settings.seed)
    return torch.from_numpy(counts).to(given.local.device)
