"""A finished run seen from its hospitals: the final model and the Shapley values of each hospital's test patients.

Only where all hospitals are on one machine can one look at every patient's values: this is for measuring the method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64

from client.cohort_folder import list_hospitals
from client.patient.run_model import ExplainedRunModel, open_run
from client.site import Site
from client.worker.answering import Worker
from client.worker.encoding import encode_patients
from server.run_folder.folder import RunFolder
from server.study import run_study
from shared_model.config import Settings
from shared_model.model.batch import Batch
from shared_model.schema import load_schema
from shared_model.shapley.checked import explain_checked
from shared_model.shapley.exact import ModalityValues
from shared_model.shapley.game import Background, FusionGame, Rows
from shared_model.training.epochs import Encoded
from shared_model.training.losses import logit_correction
from simulation.in_process import InProcessLink


@dataclass(frozen=True)
class ExplainedSite:
    """One hospital under the finished model.

    Attributes:
        site: the hospital.
        run: the model.
        rows: its test patients.
        patients: their embeddings.
        found: their Shapley values against the common background.
    """

    site: Site
    run: ExplainedRunModel
    rows: Int64[np.ndarray, "patient"]
    patients: Rows
    found: ModalityValues

    @property
    def patient_ids(self) -> list[str]:
        """Ids of the test patients."""
        return [self.site.patients.patient_ids[row] for row in self.rows]

    def batch(self, rows: Int64[np.ndarray, "row"]) -> Batch:
        """Inputs of some of the hospital's patients."""
        return self.run.preprocessing.batch(
            self.site.patients, rows, schema=self.site.schema, device=torch.device("cpu")
        )

    def encode(self, rows: Int64[np.ndarray, "row"]) -> Encoded:
        """Embeddings of some of the hospital's patients."""
        return encode_patients(
            self.site, self.run.model, self.run.preprocessing, rows, networks_sha256=self.run.networks_sha256
        )


def run_in_process(cohort: Path, run: Path, settings: Settings, *, cache_dir: Path) -> list[Site]:
    """The whole protocol with hospitals in this process; the run folder is as any other."""
    sites = [Site(folder.name, folder, cache_dir) for folder in list_hospitals(cohort)]
    link = InProcessLink([Worker(site, simulated=True) for site in sites])
    run_study(link, schema=load_schema(cohort / "schema.toml"), settings=settings, folder=RunFolder(run))
    return sites


def explain_sites(run: Path, sites: Sequence[Site], *, background: Background | None = None) -> list[ExplainedSite]:
    """Values of every hospital's test patients.

    Args:
        run: folder of the finished run.
        sites: its hospitals.
        background: in place of the run's common one.
    """
    explained = []
    for site in sites:
        model = open_run(run, site, device=torch.device("cpu"))
        explained.append(explain_site(model, site, background or model.background))
    return explained


def explain_site(model: ExplainedRunModel, site: Site, background: Background) -> ExplainedSite:
    """Values of one hospital's test patients.

    Raises:
        StudyError: values do not add up to the model's predictions.
    """
    rows = site.split(model.settings).test
    encoded = encode_patients(site, model.model, model.preprocessing, rows, networks_sha256=model.networks_sha256)
    patients = Rows(encoded.embeddings, encoded.present)
    game, correction = FusionGame(model.model), logit_correction(model.event_weight)
    values, _ = explain_checked(game, model.model, encoded, background, phase=model.phase, correction=correction)
    return ExplainedSite(site, model, rows, patients, values)


def pooled_background(explained: Sequence[ExplainedSite], *, n_rows: int, seed: int) -> Background:
    """Real training patients of all hospitals, which no hospital could have: what the common background stands for."""
    parts = [one.encode(one.site.split(one.run.settings).train) for one in explained]
    names = explained[0].run.model.modalities
    embeddings = {name: torch.cat([part.embeddings[name] for part in parts]) for name in names}
    present = {name: torch.cat([part.present[name] for part in parts]) for name in names}
    everyone = Rows(embeddings, present)
    chosen = np.random.default_rng(seed).permutation(len(everyone))[:n_rows]
    return Background(everyone.select(torch.from_numpy(chosen)), f"pooled training patients, {len(chosen)} rows")
