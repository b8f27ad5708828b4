"""The anaesthesia monitor and the drug chart: vital signs by the minute, and doses with their times."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simulation.cohort.patients import Mask, SyntheticPatients, Vector
from simulation.cohort.study import EVENTS, SERIES, study_schema

MINUTES = 120
#: Vitals drawn: systolic pressure falls and heart rate rises by this much per standard unit of `hypotension`, once it
#: is established.
SBP_PER_SD_MMHG = -9.0
HR_PER_SD_BPM = 5.0
#: Noradrenaline given in all: this much per standard unit of `vasopressor_need` above -1, nothing below.
NORADRENALINE_PER_SD_UG = 80.0
_ESTABLISHED_MIN = 15
_MEMORY = 0.85  # correlation of the noise from one minute to the next

# Mean, spread between patients, sd of the minute-to-minute noise, decimals.
_CHANNELS = {
    "hr_bpm": (78.0, 0.0, 3.0, 0),
    "sbp_mmhg": (118.0, 0.0, 4.0, 0),
    "dbp_mmhg": (62.0, 4.0, 3.0, 0),
    "spo2_pct": (96.5, 1.0, 0.6, 0),
    "etco2_kpa": (4.7, 0.4, 0.15, 1),
    "temp_c": (36.2, 0.4, 0.03, 1),
}
# Probability of being given, typical dose, spread of its logarithm; what is given at the start of surgery is given
# once.
_DRUGS = {
    "fentanyl_ug": (0.75, 100.0, 0.4),
    "morphine_mg": (0.30, 5.0, 0.4),
    "ketamine_mg": (0.20, 25.0, 0.3),
    "ephedrine_mg": (0.25, 10.0, 0.4),
    "atropine_mg": (0.06, 0.6, 0.1),
    "cefazolin_mg": (0.92, 2000.0, 0.0),
    "tranexamic_acid_mg": (0.60, 1000.0, 0.0),
    "dexamethasone_mg": (0.35, 4.0, 0.2),
    "ondansetron_mg": (0.40, 4.0, 0.0),
    "paracetamol_mg": (0.80, 1000.0, 0.0),
    "furosemide_mg": (0.04, 20.0, 0.3),
    "crystalloid_ml": (0.97, 900.0, 0.4),
    "red_cells_ml": (0.10, 300.0, 0.0),
}
_ANAESTHETIC = {"spinal": ("bupivacaine_mg", 10.0, 0.15), "general": ("propofol_mg", 100.0, 0.3)}


def surgery_minutes(patients: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Length of each operation, 50 to 120 minutes."""
    return np.clip(np.rint(rng.normal(85, 18, patients)), 50, MINUTES).astype(np.int64)


def vitals_table(
    ids: Sequence[str], patients: SyntheticPatients, *, flat: bool, rng: np.random.Generator
) -> pd.DataFrame:
    """One row per patient and minute of surgery, for the patients that have vitals.

    Args:
        ids: patient ids, in the order of `patients`.
        patients: of one hospital.
        flat: every channel keeps its first value; pressure has not begun to fall then, so nothing is shown.
        rng: for everything that means nothing.
    """
    n = len(patients)
    length = surgery_minutes(n, rng)
    minute = np.arange(MINUTES)
    inside = minute < length[:, None]
    shown = patients.shown["hypotension"][:, None] * np.clip(minute / _ESTABLISHED_MIN, 0, 1)
    drift = {"sbp_mmhg": SBP_PER_SD_MMHG * shown, "hr_bpm": HR_PER_SD_BPM * shown}
    drift["dbp_mmhg"] = 0.45 * drift["sbp_mmhg"]
    drift["temp_c"] = np.broadcast_to(-0.006 * minute, (n, MINUTES))
    rows = inside & patients.present[SERIES][:, None]
    who, when = np.nonzero(rows)
    table = {study_schema(64).study.patient_id: np.array(ids, dtype=object)[who], "time": when.astype(np.int16)}
    for channel in study_schema(64).series[SERIES].channels:
        values = _channel(channel.name, drift.get(channel.name, 0.0), inside, rng)
        low, high = channel.range
        values = np.clip(values, low, high).round(_CHANNELS[channel.name][3])
        if flat:
            values = np.repeat(values[:, :1], MINUTES, axis=1)
        values[_unmeasured(channel.name, patients, rng)] = np.nan
        table[channel.name] = values[rows].astype(np.float32)
    return pd.DataFrame(table)


def _channel(name: str, drift: Vector | float, inside: Mask, rng: np.random.Generator) -> Vector:
    mean, between, noise_sd, _ = _CHANNELS[name]
    n = len(inside)
    noise = noise_sd * rng.standard_normal((n, MINUTES))
    for minute in range(1, MINUTES):
        noise[:, minute] = _MEMORY * noise[:, minute - 1] + np.sqrt(1 - _MEMORY**2) * noise[:, minute]
    # The noise averages to zero over the established part of the operation: there the mean shows the cause and
    # nothing else.
    window = inside & (np.arange(MINUTES) >= _ESTABLISHED_MIN)
    noise -= (noise * window).sum(axis=1, keepdims=True) / window.sum(axis=1, keepdims=True)
    return np.asarray(mean + between * rng.standard_normal((n, 1)) + drift + noise)


def _unmeasured(name: str, patients: SyntheticPatients, rng: np.random.Generator) -> Mask:
    """Cells without a value: 2 % at random, temperature 4 minutes in 5, and no capnography under spinal anaesthesia."""
    empty = rng.random((len(patients), MINUTES)) < 0.02
    if name == "temp_c":
        empty |= np.arange(MINUTES) % 5 != 0
    if name == "etco2_kpa":
        empty |= (patients.columns["anaesthesia"] == 0)[:, None]
    return empty


def medications_table(ids: Sequence[str], patients: SyntheticPatients, rng: np.random.Generator) -> pd.DataFrame:
    """One row per dose given, for the patients whose medications were recorded; sorted by patient and time."""
    n = len(patients)
    parts = [_noradrenaline(patients, rng)]
    for item, (share, dose, spread) in _DRUGS.items():
        given = np.nonzero(rng.random(n) < share)[0]
        parts.append(_doses(given, item, dose=dose, spread=spread, rng=rng))
    levels = next(column.levels for column in study_schema(64).static if column.name == "anaesthesia")
    for level, name in enumerate(levels):
        item, dose, spread = _ANAESTHETIC[name]
        given = np.nonzero(patients.columns["anaesthesia"] == level)[0]
        parts.append(_doses(given, item, dose=dose, spread=spread, rng=rng))
    table = pd.concat(parts, ignore_index=True)
    table = table[patients.present[EVENTS][table["row"].to_numpy()]]
    table = table.sort_values(["row", "time", "item"], kind="stable", ignore_index=True)
    table.insert(0, study_schema(64).study.patient_id, np.array(ids, dtype=object)[table["row"].to_numpy()])
    return pd.DataFrame(table.drop(columns="row"))


def _doses(
    given: NDArray[np.int64], item: str, *, dose: float, spread: float, rng: np.random.Generator
) -> pd.DataFrame:
    amount = dose * np.exp(spread * rng.standard_normal(len(given)))
    time = rng.integers(0, 45, len(given))
    return pd.DataFrame({"row": given, "item": item, "dose": np.maximum(0.1, np.round(amount, 1)), "time": time})


def _noradrenaline(patients: SyntheticPatients, rng: np.random.Generator) -> pd.DataFrame:
    """Up to four boluses whose sum shows the cause."""
    total = NORADRENALINE_PER_SD_UG * np.clip(patients.shown["vasopressor_need"] + 1, 0, 5)
    cuts = np.sort(rng.random((len(patients), 3)), axis=1)
    shares = np.diff(cuts, axis=1, prepend=0.0, append=1.0)
    dose = np.round(total[:, None] * shares, 1)
    time = np.sort(rng.integers(5, 50, dose.shape), axis=1)
    row, bolus = np.nonzero(dose > 0)
    return pd.DataFrame({"row": row, "item": "noradrenaline_ug", "dose": dose[row, bolus], "time": time[row, bolus]})
