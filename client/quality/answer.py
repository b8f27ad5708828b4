"""The hospital's part of the data-quality step: its sums for the reference, then its own row."""

import numpy as np

from client.outbound import Gate
from client.quality.comparison_basis import Bench
from client.quality.correlation import sum_correlations
from client.quality.judging import judge_hospital
from client.quality.measuring import measure_patients, sum_measures
from client.site import Site
from shared_model.config import Settings
from shared_model.protocol.messages import QualityReply, QualityRequest, ReferenceRequest, SumsReply
from shared_model.protocol.quantities import check_arrays
from shared_model.quality.measure import Measured
from shared_model.quality.measures import (
    Sums,
    reference_quantities,
    subtract_own,
    total_quantities,
)


def answer_reference(site: Site, settings: Settings, request: ReferenceRequest, gate: Gate) -> SumsReply:  # noqa: ARG001
    """Sums of the measures over the training part.

    Raises:
        SuppressedError: too few patients.
    """
    rows, sums, _ = _measure(site, settings, gate)
    return SumsReply(arrays=gate.release_sums(sums, n_patients=len(rows)))


def answer_quality(site: Site, settings: Settings, request: QualityRequest, gate: Gate) -> QualityReply:
    """The hospital's own row, judged against the total less its own sums.

    Raises:
        ProtocolError: the total is not one of the agreed arrays.
    """
    chosen = settings.chosen_modalities(site.schema)
    check_arrays(request.reference, total_quantities(site.schema, chosen), where="reference")
    rows, own, measured = _measure(site, settings, gate)
    others = subtract_own(request.reference, own, reference_quantities(site.schema, chosen))
    bench = Bench(site.schema, chosen, gate.rule, own, others, request.n_sites)
    report = judge_hospital(bench, measured, site.patients, rows)
    events = int(site.patients.outcome[rows].sum())
    row = gate.release_report(report, modalities=site.schema.modalities, n=len(rows), events=events)
    return QualityReply(row=row)


def _measure(site: Site, settings: Settings, gate: Gate) -> tuple[np.ndarray, Sums, Measured]:
    """Rows of the training part, their sums and their measures."""
    rows, chosen = site.split(settings).train, settings.chosen_modalities(site.schema)
    measured = measure_patients(site.patients, rows, schema=site.schema, chosen=chosen)
    sums = sum_measures(measured, schema=site.schema, chosen=chosen, rule=gate.rule)
    sums |= sum_correlations(site.patients, rows, schema=site.schema, chosen=chosen, rule=gate.rule)
    return rows, sums, measured
