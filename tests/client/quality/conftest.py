"""Five sound synthetic hospitals, and how they judge each other over the protocol's own messages."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.site import Site
from client.worker.answering import Worker
from server.protocol.hospitals import Hospitals
from server.protocol.quality import Judgement, judge_quality
from shared_model.patient_arrays import PatientArrays
from shared_model.quality.checks import QualityReport
from shared_model.schema import Schema
from simulation.cohort import write_cohort
from simulation.in_process import InProcessLink
from tests.server.small_cohort import describe_study, small_settings

NAMES = tuple(f"hospital_{number}" for number in range(1, 6))
FAULTY = "hospital_2"
SIDE = 33

Change = Callable[[PatientArrays], PatientArrays]


class Federation:
    """Hospitals whose arrays a test may change, judged as in a run."""

    def __init__(self, cohort: Path, cache: Path) -> None:
        self.cohort, self.cache = cohort, cache
        self.sites = {name: Site(name, cohort / name, cache) for name in NAMES}
        self.arrays = {name: site.patients for name, site in self.sites.items()}
        self.schema: Schema = self.sites[FAULTY].schema

    def judge(
        self, changes: Mapping[str, Change] | None = None, *, hospitals: int = 5, **settings: Any
    ) -> Mapping[str, QualityReport | None]:
        return self.judgement(changes, hospitals=hospitals, **settings).reports

    def judgement(
        self, changes: Mapping[str, Change] | None = None, *, hospitals: int = 5, **settings: Any
    ) -> Judgement:
        names, chosen = NAMES[:hospitals], small_settings(**settings)
        workers = []
        for name in names:
            site = Site(name, self.cohort / name, self.cache)
            change = (changes or {}).get(name)
            site.__dict__["patients"] = change(self.arrays[name]) if change else self.arrays[name]
            workers.append(Worker(site))
        study = describe_study(workers[0].site, chosen)
        return judge_quality(
            Hospitals(InProcessLink(workers), study, self.schema, chosen, names=dict(enumerate(names)))
        )


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    folder = tmp_path_factory.mktemp("quality")
    write_cohort(folder / "cohort", patients=1600, image_size=SIDE, seed=3)
    return Federation(folder / "cohort", folder / "cache")


def found(report: QualityReport | None) -> set[tuple[str, str, str]]:
    """Check, modality and grade of each finding."""
    assert report is not None
    return {(finding.check, finding.modality, finding.grade) for finding in report.findings}


def with_images(arrays: PatientArrays, name: str, change: Callable[[np.ndarray], np.ndarray]) -> PatientArrays:
    """The images that patients have, changed; gray values on a scale of 0 to 1."""
    images = np.array(arrays.raw[name])
    here = arrays.present[name]
    images[here] = np.rint(np.clip(change(images[here] / 65_535.0), 0, 1) * 65_535).astype(np.uint16)
    return replace(arrays, raw={**arrays.raw, name: images})


def with_series(arrays: PatientArrays, change: Callable[[np.ndarray], np.ndarray]) -> PatientArrays:
    """The vital signs, changed."""
    values = change(np.array(arrays.raw["vitals"])).astype(np.float64)
    return replace(arrays, raw={**arrays.raw, "vitals": values})
