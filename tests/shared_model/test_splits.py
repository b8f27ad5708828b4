import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared_model.splits import Split, assign_folds, split_patients

FOLDS = st.integers(3, 20)
SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def patients(draw: st.DrawFn) -> tuple[list[str], np.ndarray]:
    """Ids and outcomes of a hospital."""
    ids = draw(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=80, unique=True))
    outcome = draw(st.lists(st.integers(0, 1), min_size=len(ids), max_size=len(ids)))
    return ids, np.array(outcome, dtype=np.int8)


def parts(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return split.train, split.val, split.test


@given(hospital=patients(), folds=FOLDS, fold=st.integers(0, 2), seed=SEEDS)
def test_each_row_is_in_exactly_one_part(
    hospital: tuple[list[str], np.ndarray], folds: int, fold: int, seed: int
) -> None:
    split = split_patients(*hospital, fold=fold, folds=folds, seed=seed)
    assert sorted(np.concatenate(parts(split)).tolist()) == list(range(len(hospital[0])))


@given(hospital=patients(), folds=FOLDS, seed=SEEDS)
def test_each_patient_is_tested_once_over_all_folds(
    hospital: tuple[list[str], np.ndarray], folds: int, seed: int
) -> None:
    tested = [split_patients(*hospital, fold=fold, folds=folds, seed=seed).test for fold in range(folds)]
    assert sorted(np.concatenate(tested).tolist()) == list(range(len(hospital[0])))


@given(hospital=patients(), folds=FOLDS, seed=SEEDS)
def test_folds_are_equal_in_size_deaths_and_survivors_to_within_one(
    hospital: tuple[list[str], np.ndarray], folds: int, seed: int
) -> None:
    assigned = assign_folds(*hospital, folds=folds, seed=seed)
    for group in (np.ones(len(assigned), dtype=bool), hospital[1] == 1, hospital[1] == 0):
        sizes = np.bincount(assigned[group], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


@given(hospital=patients(), folds=FOLDS, seed=SEEDS, data=st.data())
def test_fold_of_a_patient_does_not_depend_on_the_row_order(
    hospital: tuple[list[str], np.ndarray], folds: int, seed: int, data: st.DataObject
) -> None:
    ids, outcome = hospital
    order = data.draw(st.permutations(range(len(ids))))
    shuffled = assign_folds([ids[row] for row in order], outcome[order], folds=folds, seed=seed)
    assert shuffled.tolist() == assign_folds(ids, outcome, folds=folds, seed=seed)[order].tolist()


def test_five_folds_give_60_20_20_in_patients_and_deaths() -> None:
    outcome = (np.arange(100) < 20).astype(np.int8)
    split = split_patients([f"P{i}" for i in range(100)], outcome, fold=0, folds=5, seed=0)
    assert [len(part) for part in parts(split)] == [60, 20, 20]
    assert [int(outcome[part].sum()) for part in parts(split)] == [12, 4, 4]


def test_last_fold_validates_on_the_first() -> None:
    ids, outcome = [f"P{i}" for i in range(30)], np.zeros(30, dtype=np.int8)
    first = split_patients(ids, outcome, fold=0, folds=5, seed=0)
    last = split_patients(ids, outcome, fold=4, folds=5, seed=0)
    assert last.val.tolist() == first.test.tolist()


def test_seeds_give_different_folds() -> None:
    ids, outcome = [f"P{i}" for i in range(50)], np.zeros(50, dtype=np.int8)
    assert (assign_folds(ids, outcome, folds=5, seed=0) != assign_folds(ids, outcome, folds=5, seed=1)).any()


def test_folds_follow_the_documented_order() -> None:
    # sha256sum of 0:A, 0:B, ... begins 99, 39, 13, a1, 78, so the death D comes first, then C, B, E, A. Modulo 3 the
    # hash of the five hashes in ascending order begins with fold 1.
    outcome = np.array([0, 0, 0, 1, 0], dtype=np.int8)
    assert assign_folds(["A", "B", "C", "D", "E"], outcome, folds=3, seed=0).tolist() == [2, 0, 2, 1, 1]


def test_odd_deaths_of_many_hospitals_do_not_gather_in_the_first_folds() -> None:
    outcome = np.array([1, 1] + [0] * 28, dtype=np.int8)  # two deaths for five folds
    deaths = np.zeros(5)
    for hospital in range(200):
        folds = assign_folds([f"{hospital}-{patient}" for patient in range(30)], outcome, folds=5, seed=0)
        deaths += np.bincount(folds[:2], minlength=5)
    # 400 deaths over five folds: 80 each, with a standard deviation below 8
    assert deaths.min() > 80 - 4 * 8
    assert deaths.max() < 80 + 4 * 8
