"""The hospital's part of the common preprocessing: sums over its training patients."""

from __future__ import annotations

from client.outbound import Gate
from client.site import Site
from shared_model.config import Settings
from shared_model.messages import STATISTICS, SumsReply
from shared_model.preprocessing import feature_quantities, feature_sums


def answer_statistics(site: Site, settings: Settings, gate: Gate) -> SumsReply:
    """Sums over the training part.

    Raises:
        SuppressedError: too few patients.
    """
    rows = site.split(settings).train
    sums = feature_sums(site.patients, rows, site.schema)
    released = gate.release_sums(STATISTICS, sums, feature_quantities(site.schema), n_patients=len(rows))
    return SumsReply(arrays=released)
