"""The truth of a synthetic cohort: per patient, per hospital, and for the whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from shared_model.schema import STATIC
from simulation.cohort.calibration import Population, ceiling_of, shares_of
from simulation.cohort.image_files import marker_pixels
from simulation.cohort.patients import CAUSES, RELIABILITY, Mask
from simulation.cohort.ranking import expected_auc
from simulation.cohort.risk import MODALITIES, RiskModel, death_risk
from simulation.cohort.truth import Coefficient, CohortTruth, HospitalTruth
from simulation.cohort.writing import HospitalFiles
from simulation.scenarios import Scenario, find_scenario

_SHOWN_AS = {
    "displacement": "hip X-ray: the distal fragment rides up, 7 mm per standard unit",
    "bone_loss": "hip X-ray: thin cortices and faint bone",
    "opacity": "chest X-ray: lungs whiten from the base, and effusion",
    "heart_width": "chest X-ray: wide heart silhouette",
    "hypotension": "vitals: systolic pressure -9 mmHg and heart rate +5 /min per standard unit, from minute 15",
    "vasopressor_need": "medications: 80 ug of noradrenaline in all per standard unit above -1",
}


def patient_truth(
    model: RiskModel, hospital: HospitalFiles, *, informative: Mapping[str, Mask], intercept: float
) -> pd.DataFrame:
    """One row a patient: `true_...`, best prediction `best_...`, `cause_...`, and what is shown of it, `shown_...`.

    `true_logit` is the intercept plus the five true contributions, `best_logit` the intercept plus the five best
    predictions; `best_risk` also integrates over what the data leave open. `shown_...` is empty where the modality is
    absent or shows nothing.
    """
    patients = hospital.patients
    table: dict[str, object] = {
        "patient_id": list(hospital.ids),
        "hospital": hospital.site.name,
        "outcome": hospital.outcome,
    }
    for prefix, parts in (("true", model.true(patients)), ("best", model.observable(patients, informative))):
        logit = intercept + parts.logit.sum(axis=1)
        table[f"{prefix}_logit"] = logit
        table[f"{prefix}_risk"] = death_risk(logit, parts.variance)
        table |= {f"{prefix}_{name}": parts.logit[:, position] for position, name in enumerate(MODALITIES)}
    for modality, names in CAUSES.items():
        for name in names:
            table[f"cause_{name}"] = patients.cause[name]
            table[f"shown_{name}"] = np.where(informative[modality], patients.shown[name], np.nan)
    return pd.DataFrame(table)


def hospital_truth(hospital: HospitalFiles, *, intercept: float, turned: int) -> HospitalTruth:
    """What is recorded of one hospital."""
    site = hospital.site
    missing = {name: float(1 - has.mean()) for name, has in hospital.patients.present.items()}
    if hospital.scenario.without_image:
        missing[hospital.scenario.without_image] = 1.0
    return HospitalTruth(
        name=site.name,
        patients=site.patients,
        deaths=int(hospital.outcome.sum()),
        intercept=intercept,
        image_format=site.image_format,
        table_format=site.table_format,
        frailty_shift=site.frailty_shift,
        outcomes_turned=turned,
        missing={name: missing[name] for name in MODALITIES if name != STATIC},
    )


@dataclass(frozen=True)
class Reckoning:
    """All that the truth of a cohort is worked out from.

    Attributes:
        model: the true coefficients.
        population: large latent sample of the cohort's hospitals.
        intercepts: per hospital.
        table: `patient_truth` of all hospitals.
        hospitals: one entry each.
    """

    model: RiskModel
    population: Population
    intercepts: Mapping[int, float]
    table: pd.DataFrame
    hospitals: tuple[HospitalTruth, ...]

    def truth(self, *, scenario: str, affected: str, seed: int, image_size: int) -> CohortTruth:
        """The truth of the cohort.

        Args:
            scenario: its name.
            affected: name of the hospital that the scenario changed, "" for none or all.
            seed: of the cohort.
            image_size: edge of the radiographs, pixels.
        """
        ceiling = ceiling_of(self.population, self.intercepts)
        outcome = self.table["outcome"].to_numpy(dtype=float)
        best_risk = self.table["best_risk"].to_numpy()
        best_parts = self.table[[f"best_{name}" for name in MODALITIES]].to_numpy()
        chosen = find_scenario(scenario)
        return CohortTruth(
            scenario=scenario,
            description=chosen.description,
            seed=seed,
            patients=len(self.table),
            deaths=int(outcome.sum()),
            image_size=image_size,
            b0=self.hospitals[0].intercept,
            best_auc=ceiling.auc,
            best_auc_within=ceiling.auc_within,
            best_auc_cohort=expected_auc(best_risk, outcome) if 0 < outcome.sum() < len(outcome) else None,
            latent_auc=ceiling.latent_auc,
            mortality=ceiling.mortality,
            shares=shares_of(self.population.observable),
            shares_cohort=shares_of(best_parts) if len(best_parts) > 1 else None,
            latent_shares=shares_of(self.population.true),
            changes=_changes(chosen, affected=affected, image_size=image_size),
            coefficients=_coefficients(self.model),
            centre=self.model.centre,
            hospitals=self.hospitals,
        )


def _coefficients(model: RiskModel) -> tuple[Coefficient, ...]:
    static = [
        Coefficient(
            modality=STATIC,
            name=term.name,
            value=term.coefficient,
            unit=term.unit,
            threshold=None,
            reliability=1.0,
            shown_as=f"patients: {' and '.join(term.columns)}",
        )
        for term in model.terms
    ]
    shown = [
        Coefficient(
            modality=cause.modality,
            name=cause.name,
            value=cause.coefficient,
            unit="per standard deviation" + ("" if cause.threshold is None else " above the threshold"),
            threshold=cause.threshold,
            reliability=RELIABILITY[cause.modality],
            shown_as=_SHOWN_AS[cause.name],
        )
        for cause in model.causes
    ]
    return (*static, *shown)


def _changes(scenario: Scenario, *, affected: str, image_size: int) -> dict[str, Any]:
    """What the scenario changed; {} for the default."""
    changes: dict[str, Any] = {"hospital": affected} if affected else {}
    if scenario.scanner is not None:
        sigma = scenario.scanner.blur_fraction * image_size
        changes |= {"gain": scenario.scanner.gain, "gamma": scenario.scanner.gamma, "blur_sigma_pixels": sigma}
    if scenario.without_image:
        changes["image_absent"] = scenario.without_image
    if scenario.flat_series:
        changes["series_flat"] = "vitals"
    if scenario.marker is not None:
        box = dict(zip(("left", "top", "right", "bottom"), marker_pixels(scenario.marker, image_size), strict=True))
        changes |= {"image": scenario.marker.image, "box_pixels": box}
        changes |= {"in_deaths": scenario.marker.in_deaths, "in_survivors": scenario.marker.in_survivors}
    if scenario.creatinine_factor is not None:
        changes |= {"column": "creatinine_umol_l", "unit": "mg/dL", "factor": scenario.creatinine_factor}
    if scenario.mortality is not None:
        changes["mortality"] = list(scenario.mortality)
    if scenario.equal_sizes:
        changes["equal_sizes"] = True
    return changes
