"""The hospital's part of the common preprocessing: sums over its training patients."""

from __future__ import annotations

from client.outbound import Gate
from client.site import Site
from shared_model.config import Settings
from shared_model.preprocessing.statistics import replay, split_totals, statistics_quantities, sum_features
from shared_model.protocol.messages import STATISTICS, StatisticsRequest, SumsReply


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
    quantities = statistics_quantities(site.schema, first=not totals)
    return SumsReply(arrays=gate.release_sums(STATISTICS, sums, quantities, n_patients=len(rows)))
