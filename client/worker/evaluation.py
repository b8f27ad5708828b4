"""Scoring a model on one part of the hospital's patients."""

from client.outbound import Gate
from client.site import Site
from client.worker.local_model import open_given_model
from shared_model.config import Settings
from shared_model.evaluation.metrics import summarise
from shared_model.evaluation.score_quantities import pack_scores
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.protocol.messages import EvaluateReply, EvaluateRequest
from shared_model.training.epochs import predict_logits
from shared_model.training.losses import logit_correction


def answer_evaluate(site: Site, settings: Settings, request: EvaluateRequest, gate: Gate) -> EvaluateReply:
    """Score sums of one part, and the hospital's own row where its small-cell rule lets it.

    Raises:
        NeedsWeightsError: the weights did not come and are not kept.
        ProtocolError: the weights do not fit the model, or a score is not finite.
        SuppressedError: too few patients at the hospital.
    """
    given = open_given_model(site, settings, request)
    logit = predict_logits(
        given.local.model, given.encoded, phase=request.phase, correction=logit_correction(request.event_weight)
    )
    scores = ScoreSums.from_scores(logit, site.patients.outcome[given.rows])
    arrays = gate.release_sums(pack_scores(scores), n_patients=len(site.patients))
    metrics = summarise(scores)
    n, events = (metrics.n, metrics.events) if request.release_row else (0, 0)
    return EvaluateReply(arrays=arrays, row=gate.release_row(metrics.to_dict(), n=n, events=events))
