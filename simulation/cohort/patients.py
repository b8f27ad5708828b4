"""Patients drawn at random: what is written in their row, and the causes that their other modalities show.

A latent frailty (standard normal, shifted by the hospital's case mix) makes the static columns correlate with each
other. The causes shown by images, vitals and medications are standard normal and independent of it and of each other,
in every hospital: so the contribution of each modality to the log-odds is its own, and attribution between modalities
is exact.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from simulation.cohort.sites import SyntheticSite
from simulation.cohort.study import CHEST, EVENTS, HIP, SERIES, study_schema

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]
_NORMAL = NormalDist()

#: Share of the rendered parameter's variance that is the cause: o = z + noise, z ~ N(0, 1), var(o) = 1 / reliability.
RELIABILITY = {HIP: 0.90, CHEST: 0.90, SERIES: 0.80, EVENTS: 0.80}
CAUSES = {
    HIP: ("displacement", "bone_loss"),
    CHEST: ("opacity", "heart_width"),
    SERIES: ("hypotension",),
    EVENTS: ("vasopressor_need",),
}
# How much a column follows frailty (correlation of its latent), and its levels' cumulative shares at frailty_shift 0.
_BINARY = {
    "dementia": (0.50, 0.25),
    "heart_failure": (0.35, 0.15),
    "atrial_fibrillation": (0.25, 0.20),
    "copd": (0.20, 0.15),
    "diabetes": (0.10, 0.18),
    "stroke": (0.30, 0.14),
    "renal_disease": (0.30, 0.15),
    "malignancy": (0.10, 0.10),
    "anticoagulant": (0.20, 0.25),
}
_CATEGORICAL = {
    "asa_class": (0.60, (0.06, 0.42, 0.92)),
    "mobility": (0.60, (0.45, 0.70, 0.92)),
    "residence": (0.55, (0.68, 0.80)),
    "fracture_type": (0.0, (0.50, 0.90)),
    "anaesthesia": (0.0, (0.60,)),
}
_DECIMALS = {"bmi_kg_m2": 1, "crp_mg_l": 1, "hours_to_surgery": 1}


@dataclass(frozen=True)
class SyntheticPatients:
    """Patients of one hospital.

    Attributes:
        columns: static columns as written (categorical: index of the level), before cells are emptied.
        missing: per static column, whether the cell is empty; columns not named are complete.
        cause: per cause, its true value z.
        shown: per cause, the value o that the modality shows.
        present: per modality beside static, whether the patient has it.
    """

    columns: Mapping[str, Vector]
    missing: Mapping[str, Mask]
    cause: Mapping[str, Vector]
    shown: Mapping[str, Vector]
    present: Mapping[str, Mask]

    def __len__(self) -> int:
        return len(self.columns["age_years"])


def stream(seed: int, purpose: str, index: int) -> np.random.Generator:
    """The generator for one purpose at one hospital: drawing more for one purpose never moves another."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), index])


def draw_patients(site: SyntheticSite, *, patients: int, seed: int) -> SyntheticPatients:
    """Patients of a hospital.

    Args:
        site: the hospital.
        patients: how many (a large number serves to integrate over patients).
        seed: of the cohort.
    """
    columns = _static_columns(site, patients, stream(seed, "static", site.index))
    rng = stream(seed, "missing", site.index)
    missing = {name: rng.random(patients) < share for name, share in site.cell_missing.items()}
    present = {name: rng.random(patients) >= share for name, share in site.modality_missing.items()}
    cause, shown = {}, {}
    for modality, names in CAUSES.items():
        noise_sd = math.sqrt(1 / RELIABILITY[modality] - 1)
        for name in names:
            rng = stream(seed, name, site.index)
            cause[name] = rng.standard_normal(patients)
            shown[name] = cause[name] + noise_sd * rng.standard_normal(patients)
    return SyntheticPatients(columns=columns, missing=missing, cause=cause, shown=shown, present=present)


def _static_columns(site: SyntheticSite, patients: int, rng: np.random.Generator) -> dict[str, Vector]:
    frailty = site.frailty_shift + rng.standard_normal(patients)

    def follow(loading: float) -> Vector:
        return loading * frailty + math.sqrt(1 - loading**2) * rng.standard_normal(patients)

    columns: dict[str, Vector] = {"male": (rng.random(patients) < site.male_share).astype(float)}
    for name, (loading, share) in _BINARY.items():
        columns[name] = _level(follow(loading), (1 - share,))
    for name, (loading, cumulative) in _CATEGORICAL.items():
        columns[name] = _level(follow(loading), cumulative)
    columns["age_years"] = 81 + 8 * follow(0.35)
    columns["bmi_kg_m2"] = 23.8 - 3.6 * follow(0.30)
    columns["haemoglobin_g_l"] = 122 - 16 * follow(0.30)
    columns["albumin_g_l"] = 36 - 5 * follow(0.50)
    columns["creatinine_umol_l"] = 78 * np.exp(0.30 * follow(0.25) + 0.55 * columns["renal_disease"])
    columns["crp_mg_l"] = 18 * np.exp(1.1 * follow(0.15))
    columns["sodium_mmol_l"] = 138 - 4 * follow(0.15)
    columns["hours_to_surgery"] = 24 * np.exp(0.55 * follow(0.10))
    for column in study_schema(64).numbers:
        if column.range is not None:
            low, high = _limits(column.name, column.range)
            columns[column.name] = columns[column.name].clip(low, high).round(_DECIMALS.get(column.name, 0))
    return columns


def _limits(name: str, schema_range: tuple[float, float]) -> tuple[float, float]:
    """What the generator allows: inside the schema's range, and for creatinine far from it (mg/dL has to fit too)."""
    return (30.0, 1200.0) if name == "creatinine_umol_l" else schema_range


def _level(latent: Vector, cumulative: Sequence[float]) -> Vector:
    """Index of the level: how many of the normal quantiles of `cumulative` the latent exceeds."""
    cuts = [_NORMAL.inv_cdf(share) for share in cumulative]
    return np.searchsorted(np.array(cuts), latent).astype(float)
