"""Patients that a run has seen: kept at the hospital as hashes of their ids, so that later scores are not believed.

Other copies and later exports of the data hold the same patients; only their ids tell.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from client.site import Site
from shared_model.config import Settings
from shared_model.process.files import replace_file

Seen = Literal["train", "val", "test", "none", "unknown"]
_FOLDER = "seen"


class _Content(TypedDict):
    hospital: str
    patients: dict[str, Seen]


def note_patients(site: Site, settings: Settings, run_id: str) -> None:
    """Note all patients of the hospital and their parts, once a run; a run that is old is not forgotten."""
    path = _file(site.state_dir, run_id)
    if path.exists():
        return
    split, ids = site.split(settings), site.patients.patient_ids
    parts = {"train": split.train, "val": split.val, "test": split.test}
    seen = {_hash(run_id, ids[row]): part for part, rows in parts.items() for row in rows}
    replace_file(path, json.dumps({"hospital": site.folder.name, "patients": seen}).encode(), mode=0o600)


def seen_in_run(site: Site, run_id: str) -> list[Seen]:
    """How a run has seen each patient of a hospital: in which part, not at all, or nobody here knows.

    What a run has left in the hospital's cache counts, of this folder or, where there is none, of a folder of the same
    name, or of the only hospital in the cache.
    """
    known = _find(site, run_id)
    if not known:
        return ["unknown"] * len(site.patients)
    seen: dict[str, Seen] = {key: part for content in known for key, part in content["patients"].items()}
    return [seen.get(_hash(run_id, patient), "none") for patient in site.patients.patient_ids]


def _find(site: Site, run_id: str) -> Sequence[_Content]:
    own = _file(site.state_dir, run_id)
    if own.exists():
        return [json.loads(own.read_text(encoding="utf-8"))]
    others = list(_read_all(site.cache_dir, run_id))
    same_name = [content for content in others if content["hospital"] == site.folder.name]
    return same_name or (others if len(others) == 1 else [])


def _read_all(cache_dir: Path, run_id: str) -> Iterator[_Content]:
    for state_dir in sorted((cache_dir / "sites").glob("*")):
        path = _file(state_dir, run_id)
        if path.exists():
            yield json.loads(path.read_text(encoding="utf-8"))


def _file(state_dir: Path, run_id: str) -> Path:
    return state_dir / _FOLDER / f"{run_id}.json"


def _hash(run_id: str, patient_id: str) -> str:
    return hashlib.sha256(f"{run_id}\0{patient_id}".encode()).hexdigest()[:32]
