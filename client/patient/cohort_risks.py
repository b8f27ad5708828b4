"""Predicted risks of a hospital's own patients, to set one patient's risk against. They never leave the hospital."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from client.patient.run_model import RunModel
from client.site import Site
from client.worker.encoding import encode_patients
from shared_model.evaluation.score_sums import sigmoid
from shared_model.training.epochs import predict_logits
from shared_model.training.losses import logit_correction

UNSEEN = "test"


@dataclass(frozen=True)
class CohortRisks:
    """Predicted risks of some of a hospital's patients.

    Attributes:
        part: of the run that all of them are from; None where it is not known which part a patient was in.
        rows: in the hospital's arrays.
        risk: 0 to 1, of each row.
    """

    part: str | None
    rows: Int64[np.ndarray, "patient"]
    risk: Float64[np.ndarray, "patient"]

    def describe(self, row: int) -> dict[str, Any]:
        """For JSON: the risks of the others, ascending.

        Args:
            row: of the patient, whose risk is not among those told.
        """
        return {"part": self.part, "risks": np.sort(self.risk[self.rows != row]).tolist()}


def predict_risks(run: RunModel, site: Site, rows: Int64[np.ndarray, "patient"]) -> Float64[np.ndarray, "patient"]:
    """Predicted risks, 0 to 1, as the run's model gives them."""
    encoded = encode_patients(site, run.model, run.preprocessing, rows, networks_sha256=run.networks_sha256)
    return sigmoid(predict_logits(run.model, encoded, phase=run.phase, correction=logit_correction(run.event_weight)))


def parts_of_run(run: RunModel, site: Site) -> tuple[str, ...] | None:
    """Per patient train, val or test; None where it cannot be known.

    It is known where the hospital's state shows that it took part with the very patients that the folder holds now: a
    patient more would have moved others to another part.
    """
    if not run.knows(site):
        return None
    parts = [""] * len(site.patients)
    for part, rows in vars(site.split(run.settings)).items():
        for row in rows:
            parts[row] = part
    return tuple(parts)


def unseen_risks(run: RunModel, site: Site) -> CohortRisks:
    """Risks of the patients whom training never saw; of all where it is not known who they are."""
    is_known = run.knows(site)
    rows = site.split(run.settings).test if is_known else np.arange(len(site.patients))
    return CohortRisks(UNSEEN if is_known else None, rows, predict_risks(run, site, rows))
