"""One patient, the finished model, and the patients of the same hospital to compare with."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from client.patient.run_model import ExplainedRunModel
from client.site import Site
from client.worker.encoding import encode_patients
from shared_model.errors import SettingsError
from shared_model.model.batch import Batch
from shared_model.plain_text import plain_text
from shared_model.shapley.common_background import hash_background
from shared_model.shapley.game import Background, FusionGame, ModalityGame, Rows, modality_game
from shared_model.training.epochs import Encoded, predict_logits, seeded_rng
from shared_model.training.losses import logit_correction


@dataclass(frozen=True)
class Case:
    """What every part of a patient's explanation needs.

    Attributes:
        run: the finished run.
        site: the hospital.
        game: the model's fusion.
        patient_id: as the hospital calls them.
        row: of the patient in the hospital's arrays.
        rows: embeddings of the patient, one row.
        logit: log odds that the model predicts, the event weight taken out.
        correction: that is in it.
        local: the hospital's own background; None where it has no other patients for one.
        local_rows: its rows in the hospital's arrays.
    """

    run: ExplainedRunModel
    site: Site
    game: FusionGame
    patient_id: str
    row: int
    rows: Rows
    logit: float
    correction: float
    local: Background | None
    local_rows: Int64[np.ndarray, "background"]

    def batch(self, rows: Int64[np.ndarray, "row"]) -> Batch:
        """Inputs of some of the hospital's patients."""
        return _batch(self.run, self.site, rows)

    @property
    def own_batch(self) -> Batch:
        """Inputs of the patient."""
        return self.batch(np.array([self.row]))

    def has(self, name: str) -> bool:
        """True if the patient has a modality."""
        return bool(self.rows.present[name][0])

    def modality_game(self, name: str, background: Background) -> ModalityGame:
        """g_m of the patient against a background."""
        return modality_game(
            self.game,
            name,
            patient=self.rows,
            background=background.rows,
            patient_parts=self.game.contributions(self.rows)[0],
            background_parts=self.game.contributions(background.rows),
        )

    def rng(self, *purpose: str) -> np.random.Generator:
        """A generator of this patient's own, so that a file is the same each time it is made."""
        return seeded_rng(self.run.settings.seed, self.patient_id, *purpose)


def open_case(run: ExplainedRunModel, site: Site, patient_id: str) -> Case:
    """One patient of a hospital.

    Raises:
        SettingsError: the hospital has no such patient.
    """
    ids, patient_id = site.patients.patient_ids, plain_text(patient_id)
    if patient_id not in ids:
        raise SettingsError(f"patient at {site.folder.name}: expected one of its {len(ids)} patient ids, got another.")
    row = ids.index(patient_id)
    encoded = _encode(run, site, np.array([row]))
    correction = logit_correction(run.event_weight)
    logit = predict_logits(run.model, encoded, phase=run.phase, correction=correction)
    local_rows = _local_rows(run, site, row)
    return Case(
        run=run,
        site=site,
        game=FusionGame(run.model),
        patient_id=patient_id,
        row=row,
        rows=Rows(encoded.embeddings, encoded.present),
        logit=float(logit[0]),
        correction=correction,
        local=_local_background(run, site, local_rows) if len(local_rows) else None,
        local_rows=local_rows,
    )


def _local_rows(run: ExplainedRunModel, site: Site, patient: int) -> Int64[np.ndarray, "background"]:
    """The other patients whom the run's split puts in training, a sample where they are many.

    Whether training saw them is known only where `RunModel.knows` the hospital: a patient more moves others.
    """
    rows = site.split(run.settings).train
    rows = rows[rows != patient]
    if len(rows) > run.settings.background_rows:
        rng = seeded_rng(run.settings.seed, site.name, "background")
        rows = np.sort(rng.choice(rows, size=run.settings.background_rows, replace=False))
    return rows


def _local_background(run: ExplainedRunModel, site: Site, rows: Int64[np.ndarray, "background"]) -> Background:
    encoded = _encode(run, site, rows)
    names = run.model.modalities
    embeddings = {name: encoded.embeddings[name].float().cpu().numpy() for name in names}
    present = {name: encoded.present[name].cpu().numpy() for name in names}
    background_id = hash_background(run.model_hash, embeddings, present)
    return Background(Rows(encoded.embeddings, encoded.present), background_id)


def _encode(run: ExplainedRunModel, site: Site, rows: Int64[np.ndarray, "row"]) -> Encoded:
    return encode_patients(site, run.model, run.preprocessing, rows, networks_sha256=run.networks_sha256)


def _batch(run: ExplainedRunModel, site: Site, rows: Int64[np.ndarray, "row"]) -> Batch:
    return run.preprocessing.batch(site.patients, rows, schema=site.schema, device=_device(run))


def _device(run: ExplainedRunModel) -> torch.device:
    return run.model.device
