"""The peer of federated training: the same model, trained as if all patients were in one hospital."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from client.site import Site
from shared_model.config import Settings
from shared_model.patient_arrays import PatientArrays
from shared_model.splits import Split


@dataclass(frozen=True)
class PooledSite(Site):
    """All hospitals' patients as one site, each in the same part (train, val, test) as at home.

    Attributes:
        hospitals: the hospitals; `folder` is any one of theirs, for the schema.
    """

    hospitals: tuple[Site, ...] = ()

    @cached_property
    def state_dir(self) -> Path:
        """A folder of its own, beside those of the hospitals."""
        folder = super().state_dir.with_name(f"{super().state_dir.name}-pooled")
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder

    @cached_property
    def patients(self) -> PatientArrays:
        """The hospitals' patients one after the other, in memory."""
        return pool_patients([site.patients for site in self.hospitals])

    def split(self, settings: Settings) -> Split:
        """The hospitals' splits, their rows moved to where the hospital starts."""
        starts = np.cumsum([0, *(len(site.patients) for site in self.hospitals)])
        splits = [site.split(settings) for site in self.hospitals]
        return Split(
            train=np.concatenate([split.train + start for split, start in zip(splits, starts, strict=False)]),
            val=np.concatenate([split.val + start for split, start in zip(splits, starts, strict=False)]),
            test=np.concatenate([split.test + start for split, start in zip(splits, starts, strict=False)]),
        )


def pool_patients(hospitals: Sequence[PatientArrays]) -> PatientArrays:
    """Several hospitals' arrays as one; patient ids get their hospital's position in front, so they stay unique."""

    def join(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return PatientArrays(
        patient_ids=tuple(f"{i}:{patient}" for i, arrays in enumerate(hospitals) for patient in arrays.patient_ids),
        outcome=np.concatenate([arrays.outcome for arrays in hospitals]),
        numbers=np.concatenate([arrays.numbers for arrays in hospitals]),
        levels=np.concatenate([arrays.levels for arrays in hospitals]),
        raw=join([arrays.raw for arrays in hospitals]),
        present=join([arrays.present for arrays in hospitals]),
    )
