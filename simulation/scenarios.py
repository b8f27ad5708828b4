"""Scenarios: each changes one thing of the default synthetic cohort.

For the same seed and sizes a scenario's patients, causes, outcomes and files equal the default's, apart from what its
fields name. (`prevalence-shift` moves intercepts, so its outcomes move too; `many-small` has other sizes.)
"""

from dataclasses import dataclass

from shared_model.errors import SettingsError

UMOL_PER_L_TO_MG_PER_DL = 1 / 88.42


@dataclass(frozen=True)
class Scanner:
    """An X-ray machine that answers differently: gray -> blur(clip(gain * gray ** gamma)).

    Attributes:
        gain: factor on the gray value.
        gamma: exponent on the gray value in 0..1; above 1 darkens.
        blur_fraction: standard deviation of the blur as a fraction of the image's width.
    """

    gain: float
    gamma: float
    blur_fraction: float


@dataclass(frozen=True)
class Marker:
    """A bright square in the upper left corner of an image, tied to the outcome.

    Attributes:
        image: which image carries it.
        box: left, top, right, bottom as fractions of the image.
        in_deaths: probability that a patient who died has it.
        in_survivors: probability that a patient who lived has it.
    """

    image: str
    box: tuple[float, float, float, float]
    in_deaths: float
    in_survivors: float


@dataclass(frozen=True)
class Scenario:
    """One deviation from the default cohort, at the affected hospital unless it says otherwise.

    Attributes:
        description: one line for the command's help.
        hospitals: how many, where the caller gives no number.
        patients: how many in all, where the caller gives no number.
        equal_sizes: all hospitals have the same number of patients (up to one).
        scanner: the hospital's images come from another scanner.
        without_image: the hospital has no image of this name.
        flat_series: every patient's vitals there keep their first value.
        marker: see Marker.
        creatinine_factor: factor on the creatinine written there.
        mortality: 30-day mortality of the first and of the last hospital; linear between, through the intercept.
    """

    description: str
    hospitals: int = 5
    patients: int = 1600
    equal_sizes: bool = False
    scanner: Scanner | None = None
    without_image: str = ""
    flat_series: bool = False
    marker: Marker | None = None
    creatinine_factor: float | None = None
    mortality: tuple[float, float] | None = None

    @property
    def affects_one_hospital(self) -> bool:
        """True if the change is made at one hospital only."""
        return any(
            (self.scanner, self.without_image, self.flat_series, self.marker, self.creatinine_factor is not None)
        )


ALL = {
    "default": Scenario("five hospitals of unequal size, case mix and missingness; nothing wrong"),
    "scanner-shift": Scenario(
        "one hospital's images have other gain, gamma and blur",
        scanner=Scanner(gain=0.75, gamma=1.6, blur_fraction=0.018),
    ),
    "missing-chest": Scenario("one hospital has no chest X-rays", without_image="chest"),
    "flat-vitals": Scenario("one hospital's vital signs are flat lines", flat_series=True),
    "shortcut": Scenario(
        "one hospital's hip X-rays carry a bright marker in 90 % of deaths and 5 % of survivors",
        marker=Marker(image="hip", box=(0.03, 0.03, 0.16, 0.16), in_deaths=0.90, in_survivors=0.05),
    ),
    "unit-shift": Scenario(
        "one hospital writes creatinine in mg/dL instead of umol/L", creatinine_factor=UMOL_PER_L_TO_MG_PER_DL
    ),
    "prevalence-shift": Scenario(
        "mortality rises from 3 % to 20 % over the hospitals, by the intercept", mortality=(0.03, 0.20)
    ),
    "many-small": Scenario("100 hospitals of 30 patients", hospitals=100, patients=3000, equal_sizes=True),
}

SCENARIOS = {name: scenario.description for name, scenario in ALL.items()}


def find_scenario(name: str) -> Scenario:
    """The scenario of this name.

    Raises:
        SettingsError: there is none.
    """
    if name not in ALL:
        raise SettingsError(f"scenario: expected one of {', '.join(ALL)}, got {name!r}. Choose one of these.")
    return ALL[name]
