"""The steps from the reference patients' mean to the patient's prediction, in numbers that add up as shown.

Steps are in thousandths of log odds. The last step, "the rest", is what remains between the numbers shown, so that a
reader who adds them up finds the prediction; it is checked to be the sum of what is not shown, but for rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from client.patient_page.content import Explained, FeatureEffect, ModalityEffect, View
from client.patient_page.values import name_of, show_reference, show_value
from shared_model.errors import StudyError
from shared_model.pages.wording import Words

SHOWN = 12
PER_UNIT = 1000
TOLERANCE = 1e-3  # log odds: what the model's single precision may leave between the sum and the prediction


@dataclass(frozen=True)
class Step:
    """One feature's part.

    Attributes:
        label: of the feature.
        value: of the patient, in words where it is missing.
        reference: of the reference patients.
        phi: log odds, exact.
        se: standard error of phi; None where phi is exact.
    """

    label: str
    value: str
    reference: str
    phi: float
    se: float | None


@dataclass(frozen=True)
class Waterfall:
    """Numbers in thousandths of log odds: base + shown + rest = end.

    Attributes:
        base: the reference patients' mean.
        steps: the largest, largest first.
        shown: what each step is shown as.
        rest: of all other features together, with what rounding leaves.
        n_rest: how many other features there are.
        end: the prediction.
    """

    base: int
    steps: tuple[Step, ...]
    shown: tuple[int, ...]
    rest: int
    n_rest: int
    end: int

    def levels(self) -> list[float]:
        """Log odds at which each step begins, and at last that after the rest: the prediction."""
        found = [self.base]
        for step in (*self.shown, self.rest):
            found.append(found[-1] + step)
        return [level / PER_UNIT for level in found]


def show_step(thousandths: int) -> str:
    """A step as the page writes it.

    >>> show_step(653), show_step(-7), show_step(0)
    ('+0.653', '-0.007', '0.000')
    """
    return f"{thousandths / PER_UNIT:+.3f}" if thousandths else "0.000"


def build_waterfall(explained: Explained, view: View, words: Words, *, n: int = SHOWN) -> Waterfall:
    """The n largest features of all modalities, and the rest.

    Raises:
        StudyError: features do not add up to the prediction.
    """
    steps = sorted(list_steps(view, words), key=lambda step: -abs(step.phi))
    shown = [round(step.phi * PER_UNIT) for step in steps[:n]]
    base, end = round(view.base_logit * PER_UNIT), round(explained.prediction.logit * PER_UNIT)
    rest = end - base - sum(shown)
    exact = sum(step.phi for step in steps[n:])
    if abs(rest / PER_UNIT - exact) > (len(shown) + 2) * 0.5 / PER_UNIT + TOLERANCE:
        gap = rest / PER_UNIT - exact
        raise StudyError(f"features: expected to add up to the prediction, got a gap of {gap:.4f} log odds.")
    return Waterfall(base, tuple(steps[:n]), tuple(shown), rest, max(len(steps) - n, 0), end)


def list_steps(view: View, words: Words) -> Iterator[Step]:
    """Everything that adds up from the reference patients' mean to the prediction."""
    for modality in view.modalities:
        if not modality.present:
            label = words("step.without", modality=modality.name)
            lacks, they = words("value.lacking"), words("value.some_have")
            yield Step(label, lacks, they, modality.phi, None)
            continue
        yield from (_step_of(modality, feature, words) for feature in modality.features)
        if modality.presence:
            label = words("step.having", modality=modality.name)
            yield Step(label, words("value.having"), words("value.some_lack"), modality.presence, None)


def _step_of(modality: ModalityEffect, feature: FeatureEffect, words: Words) -> Step:
    value, reference = show_value(feature, words), show_reference(feature, words)
    return Step(name_of(modality, feature, words), value, reference, feature.phi, feature.se)
