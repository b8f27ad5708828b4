import numpy as np
import pytest
import torch

from shared_model.config import parse_settings
from shared_model.training.newton import GRADIENT, HESSIAN
from shared_model.training.refits import (
    LOSS,
    MESSAGE_BYTES,
    SIZES,
    draw_counts,
    is_refitted,
    refit_quantities,
    refit_sums,
    refits_in_message,
    size_sums,
)

IDS = [f"P{i}" for i in range(400)]
RNG = np.random.default_rng(0)
INPUTS = torch.from_numpy(np.column_stack([RNG.normal(size=(60, 4)), np.ones(60)]))
OUTCOME = torch.from_numpy((np.arange(60) % 4 == 0).astype(np.float64))
HEADS = torch.from_numpy(RNG.normal(size=(3, 5)))


def counts_of(numbers: list[int], site: str = "east", seed: int = 0) -> np.ndarray:
    return draw_counts(IDS, numbers, site=site, seed=seed)


def sums_of(rows: list[int] | slice, counts: np.ndarray) -> dict[str, np.ndarray]:
    return refit_sums(INPUTS[rows], OUTCOME[rows], torch.from_numpy(counts), HEADS, event_weight=1.0)


def test_refit_0_counts_every_patient_once() -> None:
    assert (counts_of([0]) == 1).all()


def test_counts_are_poisson_with_mean_1() -> None:
    drawn = counts_of(list(range(1, 251))).ravel()

    assert drawn.mean() == pytest.approx(1.0, abs=0.01)
    assert drawn.var() == pytest.approx(1.0, abs=0.02)
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.005)


def test_counts_do_not_depend_on_the_other_refits_of_a_question() -> None:
    np.testing.assert_array_equal(counts_of([7, 2, 0]), counts_of(list(range(9)))[[7, 2, 0]])


def test_counts_differ_between_refits_hospitals_and_seeds() -> None:
    first = counts_of([1])
    for other in (counts_of([2]), counts_of([1], site="north"), counts_of([1], seed=1)):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.2


def test_patient_who_counts_twice_equals_the_same_patient_twice() -> None:
    once = np.ones((3, 60))
    once[:, 5], once[:, 6] = 2.0, 0.0

    weighted = sums_of(slice(None), once)
    repeated = sums_of([*range(6), 5, *range(7, 60)], np.ones((3, 60)))

    for name in (GRADIENT, HESSIAN, LOSS):
        np.testing.assert_allclose(weighted[name], repeated[name], rtol=1e-12, atol=1e-12)


def test_sums_of_two_hospitals_are_those_of_their_patients_together() -> None:
    counts = RNG.poisson(1.0, size=(3, 60)).astype(np.float64)

    parts = [sums_of(list(range(start, end)), counts[:, start:end]) for start, end in ((0, 25), (25, 60))]
    together = sums_of(slice(None), counts)

    for name, value in together.items():
        np.testing.assert_allclose(parts[0][name] + parts[1][name], value, rtol=1e-9)


def test_sizes_are_those_of_weights_times_the_distance_from_the_backgrounds_mean() -> None:
    background = torch.from_numpy(np.column_stack([RNG.normal(size=(20, 4)), np.ones(20)]))
    counts = RNG.poisson(1.0, size=(3, 60)).astype(np.float64)

    found = size_sums(INPUTS, background, torch.from_numpy(counts), HEADS, widths=[3, 1])[SIZES]

    centred = (INPUTS - background.mean(dim=0)).numpy()
    for refit in range(3):
        for modality, columns in enumerate((slice(0, 3), slice(3, 4))):
            phi = centred[:, columns] @ HEADS.numpy()[refit, columns]
            assert found[refit, modality] == pytest.approx(float(counts[refit] @ np.abs(phi)), rel=1e-12)


@pytest.mark.parametrize("width", [3, 100, 300, 1024])
def test_message_of_the_most_refits_has_no_more_bytes_than_it_may(width: int) -> None:
    n = refits_in_message(width)

    for refits, fits in ((n, True), (n + 1, False)):
        numbers = sum(int(np.prod(quantity.shape)) for quantity in refit_quantities(refits, width=width).values())
        assert (8 * numbers <= MESSAGE_BYTES) == fits


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": "late"},
        {"strategy": "fedavg"},
        {"local-head": True},
        {"head": "32", "rounds-joint": 5},
        {"rounds-joint": 1},
    ],
)
def test_only_a_model_that_ends_with_newtons_steps_is_refitted(changes: dict[str, str | int | bool]) -> None:
    assert is_refitted(parse_settings({}))
    assert not is_refitted(parse_settings(changes))
