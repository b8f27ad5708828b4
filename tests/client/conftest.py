"""A small hospital with every kind of modality, written as a hospital would write it."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.site import Site
from shared_model.schema import Schema, parse_schema
from tests.server.small_cohort import STATIC_SCHEMA, write_small_cohort

SCHEMA = (
    STATIC_SCHEMA
    + """
[series.vitals]
time_unit = "min"
start = 0.0
step = 5.0
steps = 4

[[series.vitals.channels]]
name = "hr"
unit = "/min"
range = [0, 350]

[[series.vitals.channels]]
name = "spo2"
unit = "%"
range = [0, 100]

[events.drugs]
aggregate = "dose"
items = ["opioid", "insulin"]
recorded = "drugs_recorded"

[events.procedures]
aggregate = "any"
items = ["nail", "screw"]

[images.hip]
size = 48

[images.chest]
size = 40
"""
)

TABLES = {
    "patients.csv": """patient_id,died,age,male,asa,drugs_recorded,ward
P1,0,81,1,2,1,north
P2,1,92.5,0.0,3.0,1,south
P3,0,,,,0,north
P4,0.0,70,1.0,1,1,north
""",
    "vitals.csv": """patient_id,time,hr,spo2
P1,0,80,98
P1,4.9,90,
P1,5,70,97
P2,19.9,60,
P4,0,,
""",
    "drugs.csv": """patient_id,item,dose,time
P1,opioid,5,0
P1,opioid,2.5,30
P2,insulin,4,10
""",
    "procedures.csv": """patient_id,item
P1,nail
P1,nail
P3,screw
""",
    "images.csv": """patient_id,image,file
P1,hip,images/p1-hip.png
P2,hip,images/p2-hip.png
P1,chest,images/p1-chest.png
""",
}


@dataclass(frozen=True)
class SmallHospital:
    """A folder that keeps the contract, until a test edits it."""

    folder: Path
    schema: Schema

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text(encoding="utf-8")
        assert old in text
        self.write(name, text.replace(old, new, 1))


def _write_gradient(path: Path, *, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(24, 20), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def make_hospital() -> Callable[[Path], SmallHospital]:
    def make(folder: Path) -> SmallHospital:
        (folder / "images").mkdir(parents=True)
        for seed, name in enumerate(("p1-hip", "p2-hip", "p1-chest")):
            _write_gradient(folder / "images" / f"{name}.png", seed=seed)
        hospital = SmallHospital(folder=folder, schema=parse_schema(SCHEMA, source="schema.toml"))
        for name, text in TABLES.items():
            hospital.write(name, text)
        hospital.write("schema.toml", SCHEMA)
        return hospital

    return make


@pytest.fixture
def hospital(tmp_path: Path, make_hospital: Callable[[Path], SmallHospital]) -> SmallHospital:
    return make_hospital(tmp_path / "small")


@pytest.fixture
def small_site(tmp_path: Path) -> Site:
    """A hospital of 60 patients with static columns, a series and events; a test may change its folder."""
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1, series=True)
    return Site("east", cohort / "east", tmp_path / "cache")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A new folder that every user may pass; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="hipfed-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)
