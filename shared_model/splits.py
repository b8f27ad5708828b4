"""Training, validation and test part: by a seeded hash of the patient id, stratified by outcome."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8, Int64


@dataclass(frozen=True)
class Split:
    """Row indices of one hospital's patients, each row in exactly one part."""

    train: Int64[np.ndarray, "_train"]
    val: Int64[np.ndarray, "_val"]
    test: Int64[np.ndarray, "_test"]


def assign_folds(
    patient_ids: Sequence[str], outcome: Int8[np.ndarray, "patient"], *, folds: int, seed: int
) -> Int64[np.ndarray, "patient"]:
    """Fold 0..folds-1 of each patient.

    Within each outcome, patients in the order of SHA-256(seed, id) take the folds in turn, so every fold gets its
    share of deaths to within one, and the row order of the file does not matter. Survivors go on where the deaths
    stopped, which keeps the folds' sizes within one of each other. The first fold is drawn from the ids: if every
    hospital began with fold 0, that fold would get the odd deaths of all of them.
    """
    hashes = [hashlib.sha256(f"{seed}:{patient}".encode()).digest() for patient in patient_ids]
    order = sorted(range(len(hashes)), key=lambda row: (-outcome[row], hashes[row]))
    assigned = np.empty(len(order), dtype=np.int64)
    start = int.from_bytes(hashlib.sha256(b"".join(sorted(hashes))).digest()[:8], "big") % folds
    assigned[order] = (start + np.arange(len(order))) % folds
    return assigned


def split_patients(
    patient_ids: Sequence[str], outcome: Int8[np.ndarray, "patient"], *, fold: int, folds: int, seed: int
) -> Split:
    """Fold `fold` tests, the next one validates, the others train: with 5 folds 60/20/20."""
    assigned = assign_folds(patient_ids, outcome, folds=folds, seed=seed)
    val = (fold + 1) % folds
    return Split(
        train=np.flatnonzero((assigned != fold) & (assigned != val)),
        val=np.flatnonzero(assigned == val),
        test=np.flatnonzero(assigned == fold),
    )
