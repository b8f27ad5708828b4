"""Predicted risks of a hospital's patients by a finished model, whether or not their outcome is known."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int8

from client.data import named_folder
from client.patient.run_model import open_model
from client.site import Site
from client.worker.encoding import encode_patients
from shared_model.evaluation.score_sums import sigmoid
from shared_model.training.epochs import predict_logits
from shared_model.training.losses import logit_correction

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Predictions:
    """Predictions for all patients of one hospital. They stay there.

    Attributes:
        site: the hospital.
        logit: log odds of the outcome, the event weight taken out.
        took_part: whether the hospital's state shows that the model was trained on some of these patients; False also
            where the state is of another machine.
    """

    site: Site
    logit: Float64[np.ndarray, " patient"]
    took_part: bool

    @property
    def outcome(self) -> Int8[np.ndarray, " patient"]:
        """0 or 1; -1 = not known."""
        return self.site.patients.outcome

    def to_frame(self) -> pd.DataFrame:
        """A row a patient: id, risk (0 to 1), and whether the patient has each modality of the model."""
        patients = self.site.patients
        present = {name: patients.present[name] for name in self.site.schema.modalities}
        return pd.DataFrame({"patient_id": patients.patient_ids, "risk": sigmoid(self.logit), **present})


def predict_site(run: Path, site: Site, *, device: torch.device = CPU) -> Predictions:
    """Predictions for the patients of a hospital.

    Args:
        run: folder of a finished run.
        site: the hospital.
        device: where the model runs.

    Raises:
        StudyError: the folder is not that of a finished run, or its files do not fit together.
        SettingsError: the run is of another study than the hospital's data, or keeps layers that are not here.
        DataError: the data folder breaks the data contract.
    """
    model = open_model(run, site, device=device)
    rows = np.arange(len(site.patients))
    encoded = encode_patients(site, model.model, model.preprocessing, rows, networks_sha256=model.networks_sha256)
    logit = predict_logits(model.model, encoded, phase=model.phase, correction=logit_correction(model.event_weight))
    return Predictions(site, logit.astype(np.float64), model.knows(site))


def predict(run: Path | str, folder: Path | str, *, cache: Path | str | None = None) -> pd.DataFrame:
    """Predicted risks of a hospital's patients, whose outcome need not be known.

    Args:
        run: folder of a finished run.
        folder: the hospital's data.
        cache: where a run with layers of the hospital's own left them; None keeps nothing.

    Returns:
        A row a patient: `patient_id`, `risk` (0 to 1), and for each modality whether the patient has it.

    Raises:
        As `predict_site`.
    """
    data = named_folder(Path(folder))
    with tempfile.TemporaryDirectory(prefix="hipfed-patients-") as temporary:
        site = Site(data.name, data, Path(cache or temporary), with_outcome=False)
        return predict_site(Path(run), site).to_frame()
