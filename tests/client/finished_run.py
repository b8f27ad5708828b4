"""A finished, explained run on small hospitals with images and vital signs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from client.patient.run_model import ExplainedRunModel, open_run
from client.site import Site
from shared_model.config import Scalar
from tests.server.small_cohort import run_small_study, small_settings, write_small_cohort


@dataclass(frozen=True)
class FinishedRun:
    """Where everything is.

    Attributes:
        run: run folder.
        cohort: of the hospitals.
        cache: of the hospitals.
    """

    run: Path
    cohort: Path
    cache: Path

    def site(self, name: str = "east") -> Site:
        return Site(name, self.cohort / name, self.cache)

    def model(self, name: str = "east") -> ExplainedRunModel:
        return open_run(self.run, self.site(name), device=torch.device("cpu"))


def finish_run(folder: Path, prepare: Callable[[Path], None] | None = None, /, **settings: Scalar) -> FinishedRun:
    """Two rounds of the head on three hospitals of 60 patients, one in five of whom has no image.

    Args:
        folder: where everything goes.
        prepare: changes the cohort's folder before the run.
        settings: of the run.
    """
    cohort = write_small_cohort(folder / "cohort", images=True, series=True)
    for table in cohort.glob("*/images.csv"):
        lines = table.read_text().splitlines()
        table.write_text("\n".join(line for i, line in enumerate(lines) if i % 5 != 2) + "\n")
    if prepare is not None:
        prepare(cohort)
    chosen = small_settings(image_embedding=4, series_embedding=4, head="4", **settings)
    run_small_study(cohort, folder / "run", settings=chosen, cache_dir=folder / "cache")
    return FinishedRun(folder / "run", cohort, folder / "cache")
