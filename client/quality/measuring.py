"""Turn patients into the measures of the data-quality report."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from client.quality.images import measure_images
from shared_model.patient_arrays import PatientArrays
from shared_model.privacy.suppression import SmallCellRule
from shared_model.quality.measures import (
    INTERVAL,
    KNOWN,
    LEVEL,
    OUTCOME,
    PIXEL,
    PRESENCE,
    SPAN,
    STILL,
    THUMBNAIL,
    THUMBNAIL_EVENTS,
    THUMBNAIL_OTHERS,
    Measured,
    Moments,
    Sums,
    list_measures,
    to_level,
)
from shared_model.schema import STATIC, Range, Schema, Series

MIN_PAIRS = 4  # successive values that a patient's still share rests on


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
    if STATIC in chosen:
        measured |= _measure_static(arrays, rows, schema)
    for name in others:
        here = rows[arrays.present[name][rows]]
        if name in schema.series:
            measured |= _measure_series(np.asarray(arrays.series[name][here]), name, schema.series[name])
        elif name in schema.images:
            measured |= _measure_image(arrays, here, name)
        elif schema.events[name].aggregate == "dose":
            measured[f"{name}/{LEVEL}"] = to_level(arrays.events[name][here], (0.0, np.inf))
    return measured


def _measure_static(arrays: PatientArrays, rows: Int64[np.ndarray, " row"], schema: Schema) -> Measured:
    numbers, levels = arrays.numbers[rows], arrays.levels[rows]
    known = np.concatenate([~np.isnan(numbers), levels >= 0], axis=1)
    limits = {column.name: column.range for column in schema.numbers if column.range is not None}
    numeric = [i for i, column in enumerate(schema.numbers) if column.name in limits]
    return {
        f"{STATIC}/{KNOWN}": known.astype(np.float64),
        f"{STATIC}/{LEVEL}": _levels(numbers[:, numeric], list(limits.values())),
    }


def _levels(values: Float64[np.ndarray, "patient item"], limits: list[Range]) -> Float64[np.ndarray, "patient item"]:
    columns = [to_level(values[:, i], each) for i, each in enumerate(limits)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(values), 0))


def _measure_series(values: Float64[np.ndarray, "patient time channel"], name: str, series: Series) -> Measured:
    measured = ~np.isnan(values)
    count = measured.sum(axis=1)
    total = np.where(measured, values, 0.0).sum(axis=1, dtype=np.float64)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    interval, duration = _time_measures(measured.any(axis=2))
    return {
        f"{name}/{KNOWN}": count / values.shape[1],
        f"{name}/{LEVEL}": _levels(mean, [channel.range for channel in series.channels]),
        f"{name}/{STILL}": np.stack([still_share(values[:, :, i]) for i in range(values.shape[2])], axis=1),
        f"{name}/{INTERVAL}": interval[:, None],
        f"{name}/{SPAN}": duration[:, None],
    }


def _time_measures(
    measured: Bool[np.ndarray, "patient time"],
) -> tuple[Float64[np.ndarray, " patient"], Float64[np.ndarray, " patient"]]:
    """Logarithms of the mean interval between filled cells and of the time from the first to the last, in cells."""
    n_steps = measured.shape[1]
    count = measured.sum(axis=1)
    first = measured.argmax(axis=1)
    last = n_steps - 1 - measured[:, ::-1].argmax(axis=1)
    span = last - first
    interval = np.where(count > 1, np.log(np.maximum(span, 1) / np.maximum(count - 1, 1)), np.nan)
    return interval, np.where(count > 0, np.log(span + 1.0), np.nan)


def still_share(values: Float64[np.ndarray, "patient time"]) -> Float64[np.ndarray, " patient"]:
    """Share of successive values that are equal; gaps are skipped; NaN with fewer than `MIN_PAIRS` pairs.

    Args:
        values: of one channel, NaN where nothing was measured.
    """
    measured = ~np.isnan(values)
    steps = np.arange(values.shape[1])
    before = np.maximum.accumulate(np.where(measured, steps, -1), axis=1)
    before = np.concatenate([np.full((len(values), 1), -1), before[:, :-1]], axis=1)
    pair = measured & (before >= 0)
    earlier = np.take_along_axis(values, np.maximum(before, 0), axis=1)
    n_pairs = pair.sum(axis=1)
    equal = (pair & (values == earlier)).sum(axis=1)
    return np.where(n_pairs >= MIN_PAIRS, equal / np.maximum(n_pairs, 1), np.nan)


def _measure_image(arrays: PatientArrays, here: Int64[np.ndarray, " row"], name: str) -> Measured:
    pixels, thumbnails = measure_images(arrays.images[name], here)
    died = arrays.outcome[here] == 1
    return {
        f"{name}/{PIXEL}": pixels,
        f"{name}/{THUMBNAIL}": thumbnails,
        f"{name}/{THUMBNAIL_EVENTS}": thumbnails[died],
        f"{name}/{THUMBNAIL_OTHERS}": thumbnails[~died],
    }


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
