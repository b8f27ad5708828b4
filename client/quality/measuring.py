"""Turn patients into the measures of the data-quality report."""

import numpy as np
from jaxtyping import Int64

from shared_model.modalities.registry import open_modality
from shared_model.patient_arrays import PatientArrays
from shared_model.privacy.suppression import SmallCellRule
from shared_model.quality.measure import OUTCOME, PRESENCE, THUMBNAIL_EVENTS, THUMBNAIL_OTHERS, Measured
from shared_model.quality.measures import Moments, Sums, list_measures
from shared_model.schema import STATIC, Schema


def measure_patients(
    arrays: PatientArrays, rows: Int64[np.ndarray, " row"], *, schema: Schema, chosen: tuple[str, ...]
) -> Measured:
    """Every measure of some patients.

    Args:
        arrays: all patients of the hospital.
        rows: indices of those to measure.
        schema: the study.
        chosen: the modalities to look at.

    Returns:
        Per measure a matrix [row, item]; NaN where a patient has no such number. The matrices of thumbnails have a row
        for each image only, in the order of `rows`, split by outcome in two of them.
    """
    outcome = arrays.outcome[rows]
    others = [name for name in chosen if name != STATIC]
    measured: Measured = {OUTCOME: outcome[:, None].astype(np.float64)}
    measured[PRESENCE] = np.zeros((len(rows), len(others)))
    for i, name in enumerate(others):
        measured[PRESENCE][:, i] = arrays.present[name][rows]
    for name in chosen:
        measured |= open_modality(name, schema).measure(arrays, rows)
    return measured


def sum_measures(measured: Measured, *, schema: Schema, chosen: tuple[str, ...], rule: SmallCellRule) -> Sums:
    """A hospital's part of the reference: sums of what rests on enough patients, zeros for the rest.

    Args:
        measured: of its training patients.
        schema: the study.
        chosen: the modalities that were measured.
        rule: small-cell rule; sums by outcome need its events and non-events too.
    """
    sums: Sums = {}
    for measure in list_measures(schema, chosen):
        moments = Moments.of(measured[measure.key])
        allowed = moments.n >= rule.min_patients
        if measure.key == OUTCOME:
            allowed &= rule.may_release(n=int(moments.n[0]), events=int(moments.total[0]))
        elif measure.key.endswith((THUMBNAIL_EVENTS, THUMBNAIL_OTHERS)):
            n_events, n_others = (
                len(measured[f"{measure.modality}/{part}"]) for part in (THUMBNAIL_EVENTS, THUMBNAIL_OTHERS)
            )
            allowed = np.full(len(allowed), rule.may_release(n=n_events + n_others, events=n_events))
        sums |= moments.kept(allowed).write(measure.key)
    return sums
