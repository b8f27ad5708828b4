"""Predicted risks of a hospital's patients by a finished model, whether or not their outcome is known."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int8

from client.data import cohort_cache_dir, named_folder
from client.patient.run_model import open_model
from client.site import Site
from client.worker.encoding import encode_patients
from client.worker.seen_patients import Seen, seen_in_run
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
        seen: how the run has seen each patient: in its train, val or test part, none, or unknown.
        modalities: of the model.
    """

    site: Site
    logit: Float64[np.ndarray, " patient"]
    seen: tuple[Seen, ...]
    modalities: tuple[str, ...]

    @property
    def outcome(self) -> Int8[np.ndarray, " patient"]:
        """0 or 1; -1 = not known."""
        return self.site.patients.outcome

    def to_frame(self) -> pd.DataFrame:
        """A row a patient: `patient_id`, `risk` (0 to 1), `part_of_run` (as `seen`), `has_NAME` for each modality."""
        patients = self.site.patients
        columns = {"patient_id": patients.patient_ids, "risk": sigmoid(self.logit), "part_of_run": self.seen}
        return pd.DataFrame({**columns, **{f"has_{name}": patients.present[name] for name in self.modalities}})

    def describe_seen(self) -> str:
        """What is to be told of patients whom the run has seen; "" where it has seen nobody."""
        n = sum(seen in {"train", "val"} for seen in self.seen)
        if n:
            return f"The model was made with {n} of these patients: of them the risks are too good."
        if "unknown" in self.seen:
            return (
                "Whether the model was made with some of these patients is not known here: of such patients the risks "
                "are too good."
            )
        return ""


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
    seen = tuple(seen_in_run(site, model.run_id))
    return Predictions(site, logit.astype(np.float64), seen, model.model.modalities)


def predict(run: Path | str, folder: Path | str, *, cache: Path | str | None = None) -> pd.DataFrame:
    """Predicted risks of a hospital's patients, whose outcome need not be known.

    Args:
        run: folder of a finished run.
        folder: the hospital's data.
        cache: where a run left what it keeps at the hospital, such as who took part; None is that of the cohort.

    Returns:
        A row a patient: `patient_id`, `risk` (0 to 1), `part_of_run` (train, val, test, none, unknown: of patients
        with whom the model was made, risks are too good), and `has_NAME` for each modality of the model.

    Raises:
        As `predict_site`.
    """
    data = named_folder(Path(folder))
    with tempfile.TemporaryDirectory(prefix="hipfed-patients-") as temporary:
        beside = cohort_cache_dir(data.parent)
        kept = Path(cache) if cache else beside if beside.is_dir() else Path(temporary)
        site = Site(data.name, data, kept, with_outcome=False)
        return predict_site(Path(run), site).to_frame()
