"""Files of the truth at the root of a synthetic cohort: truth.json and truth_patients.csv."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from shared_model.errors import SettingsError


@dataclass(frozen=True)
class Coefficient:
    """One coefficient of the true log-odds.

    Attributes:
        modality: which modality shows it.
        name: static term or cause.
        value: log-odds per unit.
        unit: what one unit is.
        threshold: in units of the cause; only what lies above it counts (None = linear).
        reliability: share of the shown value's variance that is the cause (1 for static columns).
        shown_as: what a person sees of it.
    """

    modality: str
    name: str
    value: float
    unit: str
    threshold: float | None
    reliability: float
    shown_as: str


@dataclass(frozen=True)
class HospitalTruth:
    """One hospital.

    Attributes:
        name: its folder.
        patients: how many.
        deaths: within 30 days.
        intercept: of the true log-odds.
        image_format: how radiographs are stored.
        table_format: how patients.* is stored.
        frailty_shift: its case mix, in standard deviations of the latent frailty.
        outcomes_turned: outcomes turned so that it has some deaths and some survivors (0 = all as drawn).
        missing: share of patients without each modality, as written.
    """

    name: str
    patients: int
    deaths: int
    intercept: float
    image_format: str
    table_format: str
    frailty_shift: float
    outcomes_turned: int
    missing: dict[str, float]


@dataclass(frozen=True)
class CohortTruth:
    """Everything that decided the cohort, and what can be found in it at best.

    Attributes:
        scenario: name.
        description: of the scenario.
        seed: of the cohort.
        patients: how many in all.
        deaths: how many in all.
        image_size: edge of the radiographs, pixels.
        b0: intercept of the true log-odds (of the first hospital, where hospitals differ).
        best_auc: of the best predictor from observable data, over a large latent sample.
        best_auc_within: the same over pairs within a hospital.
        best_auc_cohort: of that predictor on this cohort's drawn outcomes; noisy, its standard error is about 0.02 at
            1,600 patients. None where all died or all lived.
        latent_auc: of the true risk itself, over the large sample.
        mortality: mean true risk over the large sample.
        shares: modality shares of the best predictor's attribution, over the large sample. The headline.
        shares_cohort: the same over this cohort's patients; None for a single patient.
        latent_shares: modality shares of the true log-odds, over the large sample.
        changes: what the scenario changed, and where.
        coefficients: of the true log-odds; contributions are centred, see `centre`.
        centre: per modality, what is subtracted from its sum of coefficient * value.
        hospitals: one entry each.
    """

    scenario: str
    description: str
    seed: int
    patients: int
    deaths: int
    image_size: int
    b0: float
    best_auc: float
    best_auc_within: float
    best_auc_cohort: float | None
    latent_auc: float
    mortality: float
    shares: dict[str, float]
    shares_cohort: dict[str, float] | None
    latent_shares: dict[str, float]
    changes: dict[str, Any]
    coefficients: tuple[Coefficient, ...]
    centre: dict[str, float]
    hospitals: tuple[HospitalTruth, ...]

    def to_json(self) -> str:
        """Content of truth.json."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"


def parse_truth(text: str, *, source: str) -> CohortTruth:
    """Truth from the content of a truth.json.

    Raises:
        SettingsError: the text is not one that `to_json` wrote.
    """
    try:
        content = json.loads(text)
        content["coefficients"] = tuple(Coefficient(**entry) for entry in content["coefficients"])
        content["hospitals"] = tuple(HospitalTruth(**entry) for entry in content["hospitals"])
        return CohortTruth(**content)
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"truth at {source}: expected a truth.json of this version, got: {error}. Make the cohort again."
        ) from error
