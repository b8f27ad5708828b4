"""The whole judgement of one hospital: against the others' sums in a run, or alone on the hospital's own screen."""

import numpy as np
from jaxtyping import Float64, Int64

from client.quality.comparison import judge_sums
from client.quality.comparison_basis import Bench
from client.quality.correlation import judge_correlations, sum_correlations
from client.quality.images import find_blank, find_wrong_way
from client.quality.measuring import measure_patients, sum_measures
from client.quality.outcome import judge_missing_by_outcome, judge_short_cuts
from shared_model.patient_arrays import PatientArrays
from shared_model.privacy.suppression import SmallCellRule
from shared_model.quality.checks import (
    BLANK,
    FEWEST_IMAGES,
    FEWEST_OTHERS,
    INVERTED,
    TURNED,
    CheckFinding,
    QualityReport,
    sort_findings,
)
from shared_model.quality.measure import THUMBNAIL, Measured
from shared_model.quality.measures import Moments
from shared_model.schema import Schema


def judge_alone(arrays: PatientArrays, schema: Schema, *, rule: SmallCellRule) -> QualityReport:
    """What can be said of a hospital's patients without any other hospital.

    Args:
        arrays: all its patients.
        schema: the study.
        rule: groups below it are not judged.
    """
    rows = np.arange(len(arrays), dtype=np.int64)
    chosen = schema.modalities
    measured = measure_patients(arrays, rows, schema=schema, chosen=chosen)
    own = sum_measures(measured, schema=schema, chosen=chosen, rule=rule)
    own |= sum_correlations(arrays, rows, schema=schema, chosen=chosen, rule=rule)
    return judge_hospital(Bench(schema, chosen, rule, own), measured, arrays, rows)


def judge_hospital(
    bench: Bench, measured: Measured, arrays: PatientArrays, rows: Int64[np.ndarray, " row"]
) -> QualityReport:
    """Every check of a hospital.

    Args:
        bench: what is judged, against whom, and how strictly.
        measured: of `rows`.
        arrays: all patients of the hospital.
        rows: those that are judged.
    """
    findings = [
        *judge_sums(bench),
        *_judge_images(bench, measured, arrays, rows),
        *judge_missing_by_outcome(bench, measured, arrays.outcome[rows]),
        *judge_short_cuts(bench, measured, arrays, rows),
        *judge_correlations(bench),
    ]
    may_compare = bench.rule.may_release(n=len(rows), events=int(arrays.outcome[rows].sum()))
    return QualityReport(judged=sum(bench.judged.values()), by_outcome=may_compare, findings=sort_findings(findings))


def _judge_images(
    bench: Bench, measured: Measured, arrays: PatientArrays, rows: Int64[np.ndarray, " row"]
) -> list[CheckFinding]:
    """Shares of images that are blank, inverted or turned."""
    found = []
    for name in (name for name in bench.chosen if name in bench.schema.images):
        here = rows[arrays.present[name][rows]]
        if len(here) < bench.rule.min_patients:
            continue
        reference = _mean_image(bench, name)
        inverted, turned = find_wrong_way(measured[f"{name}/{THUMBNAIL}"], reference)
        shares = {BLANK: find_blank(arrays.raw[name], here), INVERTED: inverted, TURNED: turned}
        for check, images in shares.items():
            n = int(images.sum())
            bench.count(check, 1)
            if n >= FEWEST_IMAGES:
                told = None if bench.rule.shown_count(n, len(here)) is None else n / len(here)
                found += bench.find(check, (name, ""), effect=n / len(here), value=told)
    return found


def _mean_image(bench: Bench, name: str) -> Float64[np.ndarray, " cell"]:
    """What an image should look like: the mean of at least two others, or where there is none the hospital's own."""
    if bench.others:
        others = Moments.read(bench.others, f"{name}/{THUMBNAIL}")
        if np.rint(others.sites[0]) >= FEWEST_OTHERS:
            return others.mean
    return Moments.read(bench.own, f"{name}/{THUMBNAIL}").mean
