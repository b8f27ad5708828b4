"""A hospital as its worker sees it: one data folder, read once, and one folder of its own state."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from client.data import find_schema, load_hospital, open_hospital
from shared_model.config import Settings
from shared_model.patient_arrays import PatientArrays
from shared_model.privacy.suppression import SmallCellRule
from shared_model.schema import Schema, load_schema
from shared_model.splits import Split, split_patients


@dataclass(frozen=True)
class Site:
    """One hospital.

    Attributes:
        name: how the coordinator calls it.
        folder: its data folder, as client/DATA.md describes it.
        cache_dir: where decoded data and state live; private to the hospital.
        rule: the hospital's own small-cell rule; a run may ask for a stricter one, never for a looser.
        with_outcome: every patient's outcome must be known; False where patients are to be scored and nothing else.
    """

    name: str
    folder: Path
    cache_dir: Path
    rule: SmallCellRule = field(default_factory=SmallCellRule)
    with_outcome: bool = True

    @cached_property
    def schema(self) -> Schema:
        """The study, from the hospital's own copy of schema.toml.

        Raises:
            SchemaError: no valid schema.
        """
        return load_schema(find_schema(self.folder))

    @cached_property
    def patients(self) -> PatientArrays:
        """All patients.

        Raises:
            DataError: the folder breaks the data contract.
        """
        if not self.with_outcome:  # not from the cache, whose patients are trained on
            return open_hospital(self.folder, self.schema, cache_dir=None, with_outcome=False).arrays
        return load_hospital(self.folder, self.schema, cache_dir=self.cache_dir)

    def image_hash(self, name: str) -> str:
        """SHA-256 of one image of all patients and of who has it, computed once: a film may be all black."""
        if name not in self._image_hashes:
            films, present = self.patients.raw[name], self.patients.present[name]
            digest = hashlib.sha256(repr(films.shape).encode() + present.tobytes())
            digest.update(films.tobytes())
            self._image_hashes[name] = digest.hexdigest()
        return self._image_hashes[name]

    @cached_property
    def _image_hashes(self) -> dict[str, str]:
        return {}

    @cached_property
    def state_dir(self) -> Path:
        """Folder of the site's own files (audit log, worker log, cached weights), readable by its owner only."""
        key = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]
        folder = self.cache_dir / "sites" / f"{self.folder.name}-{key}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def split(self, settings: Settings) -> Split:
        """Training, validation and test rows under the run's seed and fold."""
        return split_patients(
            self.patients.patient_ids,
            self.patients.outcome,
            fold=settings.fold,
            folds=settings.folds,
            seed=settings.seed,
        )
