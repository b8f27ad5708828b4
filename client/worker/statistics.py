"""The hospital's part of the common preprocessing: sums over its training patients."""

from client.outbound import Gate
from client.site import Site
from shared_model.config import Settings
from shared_model.preprocessing.statistics import replay, split_totals, sum_features
from shared_model.protocol.messages import StatisticsRequest, SumsReply


def answer_statistics(site: Site, settings: Settings, request: StatisticsRequest, gate: Gate) -> SumsReply:
    """Sums over the training part, at the places that follow from the totals of the earlier questions.

    Raises:
        ProtocolError: totals that no earlier question can have.
        SuppressedError: too few patients.
    """
    rows = site.split(settings).train
    totals = split_totals(request.totals, site.schema)
    frame = replay(site.schema, totals, min_patients=settings.min_patients)
    sums = sum_features(site.patients, rows, site.schema, frame)
    return SumsReply(arrays=gate.release_sums(sums, n_patients=len(rows)))
