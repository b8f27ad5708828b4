"""One scale for every colour of a patient's page: the patient's own prediction, and below it no colour at all.

A picture that is coloured by its own strongest part looks alike whether it moves the prediction much or not at all. So
the unit of colour is a hundredth of all that moves this prediction, the sum of |phi| of its kinds of data, and never
less than 0.01 log odds, which changes odds by one percent. A part has its full colour from one unit on; what has less
than one unit in all has no effect on this prediction, and no colour.
"""

from __future__ import annotations

from dataclasses import dataclass

from client.patient_page.content import Explained, ModalityEffect

PART = 0.01  # of the sum of all |phi| of the prediction
LEAST = 0.01  # log odds


@dataclass(frozen=True)
class Scale:
    """The prediction that effects are measured by; log odds.

    Attributes:
        total: sum of |phi| over the kinds of data, against the common background.
    """

    total: float

    @classmethod
    def of(cls, explained: Explained) -> Scale:
        """Of one patient."""
        return cls(sum(abs(modality.phi) for modality in explained.views["common"].modalities))

    @property
    def unit(self) -> float:
        """From here on a colour is full; an effect below is none."""
        return max(LEAST, PART * self.total)

    def has_effect(self, *phi: float) -> bool:
        """True if any of some effects reaches the unit."""
        return any(abs(one) >= self.unit for one in phi)

    def share(self, modality: ModalityEffect) -> float:
        """Part of the prediction's attribution."""
        return abs(modality.phi) / self.total if self.total else 0.0

    def tell(self) -> dict[str, str]:
        """The unit and the total as the page's texts name them."""
        return {"unit": f"{self.unit:.3f}", "total": f"{self.total:.3f}"}
