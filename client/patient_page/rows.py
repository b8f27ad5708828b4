"""A patient as a line of the list."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One patient of the list.

    Attributes:
        patient_id: as the hospital calls them.
        risk: predicted, 0 to 1.
        part: of the run; None where it is not known.
        lacks: modalities that the patient does not have.
        outcome: None unless it is shown by purpose.
    """

    patient_id: str
    risk: float
    part: str | None
    lacks: tuple[str, ...]
    outcome: bool | None
