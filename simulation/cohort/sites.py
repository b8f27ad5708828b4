"""The hospitals: how many patients each has, how its patients differ, how it files them, and what it leaves out.

Everything here follows from the hospital's number alone, so that the same hospital looks the same in every scenario
and for every seed.
"""

from dataclasses import dataclass
from typing import Literal

ImageFormat = Literal["dicom-monochrome2", "dicom-monochrome1", "png"]
TableFormat = Literal["csv", "parquet"]

_IMAGE_FORMATS: tuple[ImageFormat, ...] = ("dicom-monochrome2", "png", "dicom-monochrome1", "png", "png")
_PARQUET_SITE = 1
_FEW_MEDICATIONS_SITE = 3
_FEW_VITALS_SITE = 2
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class SyntheticSite:
    """One hospital.

    Attributes:
        index: 0, 1, ...; the folder is hospital_<index + 1>.
        patients: how many.
        frailty_shift: mean of its patients' latent frailty, in standard deviations of frailty.
        male_share: share of men.
        image_format: how radiographs are stored.
        table_format: how patients.* is stored.
        cell_missing: probability that a cell of a static column is empty; columns not named are complete.
        modality_missing: probability that a patient lacks a whole modality.
    """

    index: int
    patients: int
    frailty_shift: float
    male_share: float
    image_format: ImageFormat
    table_format: TableFormat
    cell_missing: dict[str, float]
    modality_missing: dict[str, float]

    @property
    def name(self) -> str:
        """Name of the hospital's folder."""
        return f"hospital_{self.index + 1}"


def plan_sites(*, hospitals: int, patients: int, equal_sizes: bool) -> tuple[SyntheticSite, ...]:
    """The hospitals of a cohort; sizes sum to `patients`, and each is at least 1.

    Args:
        hospitals: how many, at least 1.
        patients: how many in all, at least one a hospital.
        equal_sizes: the same size everywhere (up to one) rather than sizes that fall as rank ** -0.7.
    """
    weights = [1.0 if equal_sizes else (index + 1) ** -0.7 for index in range(hospitals)]
    sizes = _apportion(weights, patients)
    return tuple(_site(index, size) for index, size in enumerate(sizes))


def _apportion(weights: list[float], patients: int) -> list[int]:
    """Largest remainders, after one patient for each."""
    free = patients - len(weights)
    quotas = [free * weight / sum(weights) for weight in weights]
    sizes = [1 + int(quota) for quota in quotas]
    by_remainder = sorted(range(len(weights)), key=lambda index: (int(quotas[index]) - quotas[index], index))
    for index in by_remainder[: patients - sum(sizes)]:
        sizes[index] += 1
    return sizes


def _site(index: int, patients: int) -> SyntheticSite:
    kind = index % len(_IMAGE_FORMATS)
    # Low-discrepancy positions in -0.5..0.5: neighbours differ, and any number of hospitals covers the span evenly.
    case_mix, care = ((index * step) % 1.0 - 0.5 for step in (_GOLDEN, _GOLDEN**2))
    return SyntheticSite(
        index=index,
        patients=patients,
        frailty_shift=0.6 * case_mix,
        male_share=0.30 + 0.10 * care,
        image_format=_IMAGE_FORMATS[kind],
        table_format="parquet" if kind == _PARQUET_SITE else "csv",
        cell_missing={
            "bmi_kg_m2": 0.22 + 0.30 * case_mix,
            "haemoglobin_g_l": 0.02 + 0.02 * care,
            "albumin_g_l": 0.15 + 0.24 * care,
            "creatinine_umol_l": 0.03 + 0.04 * care,
            "crp_mg_l": 0.12 - 0.16 * case_mix,
            "mobility": 0.06 + 0.08 * case_mix,
            "hours_to_surgery": 0.02 - 0.02 * case_mix,
        },
        modality_missing={
            "hip": 0.03 + 0.03 * care,
            "chest": 0.08 + 0.10 * case_mix,
            "vitals": 0.15 if kind == _FEW_VITALS_SITE else 0.05,
            "medications": 0.70 if kind == _FEW_MEDICATIONS_SITE else 0.06,
        },
    )
