import dataclasses

import numpy as np
import pytest

from shared_model.modalities.feature import Feature
from shared_model.protocol.quantities import check_arrays
from shared_model.shapley.exact import ModalityValues
from shared_model.shapley.features import FeatureValues
from shared_model.shapley.summary import (
    PHI_EDGES,
    FeaturePhi,
    Sums,
    feature_quantities,
    feature_sums,
    modality_quantities,
    modality_sums,
)

NAMES = ("static", "vitals", "hip")
AGE = Feature("age", "years", (0,), edges=(-1.0, 1.0))
MALE = Feature("male", "", (1,), levels=("0", "1"))
IMAGE = Feature("image", "", (2,))


HOSPITAL_COUNTS = ("sites", "sites-present")


def drawn_values(n: int, *, seed: int = 0) -> ModalityValues:
    rng = np.random.default_rng(seed)
    m = len(NAMES)
    interactions = rng.normal(size=(n, m, m))
    return ModalityValues(
        modalities=NAMES,
        phi=rng.normal(size=(n, m)),
        phi_probability=rng.normal(size=(n, m)) / 10,
        logit=rng.normal(size=n),
        base_logit=-2.0,
        probability=rng.random(n),
        base_probability=0.1,
        alone=rng.normal(size=(n, m)),
        left_out=rng.normal(size=(n, m)),
        interactions=interactions + interactions.transpose(0, 2, 1),
        se_background=rng.random((n, m)),
        present=rng.random((n, m)) < 0.7,
        background_id="b",
    )


def take(values: ModalityValues, rows: np.ndarray) -> ModalityValues:
    fields = dataclasses.asdict(values)
    return ModalityValues(**{k: v[rows] if isinstance(v, np.ndarray) else v for k, v in fields.items()})


def sum_modalities(values: ModalityValues, rows: np.ndarray) -> Sums:
    """Sums over some rows of 20 patients: strata everybody, and every third."""
    members = np.stack([np.ones(20, dtype=bool), np.arange(20) % 3 == 0])
    outcome = (np.arange(20) % 4 == 0).astype(np.float64)
    error = np.linspace(0, 1e-6, 20)
    return modality_sums(
        take(values, rows), members=members[:, rows], outcome=outcome[rows], additivity_error=error[rows]
    )


def drawn_features(n: int, *, seed: int = 0) -> FeaturePhi:
    rng = np.random.default_rng(seed)
    known = rng.random((n, 3)) < 0.8
    known[:, 2] = False
    group = np.stack([rng.integers(0, 3, n), rng.integers(0, 2, n), np.zeros(n, dtype=np.int64)], axis=1)
    group[:, :2] = np.where(known[:, :2], group[:, :2], [AGE.n_groups - 1, MALE.n_groups - 1])
    z = np.where(known, rng.normal(size=(n, 3)), 0.0)
    return FeaturePhi(rng.normal(size=(n, 3)), rng.random((n, 3)) / 100, FeatureValues(z, known, group))


def take_features(found: FeaturePhi, rows: np.ndarray) -> FeaturePhi:
    values = FeatureValues(found.values.z[rows], found.values.known[rows], found.values.group[rows])
    return FeaturePhi(found.phi[rows], found.se[rows], values)


def one_feature(phi: list[float], *, known: list[bool], group: list[int], z: list[float]) -> FeaturePhi:
    def column(values: list[float]) -> np.ndarray:
        return np.array(values)[:, None]

    values = FeatureValues(column(z), np.array(known)[:, None], np.array(group)[:, None])
    return FeaturePhi(column(phi), column([0.25] * len(phi)), values)


# ---------------------------------------------------------------------------------------------------------- modalities


def test_two_hospitals_sums_add_up_to_those_of_their_patients_together() -> None:
    values, rows = drawn_values(20), np.arange(20)

    together, first, second = (sum_modalities(values, chosen) for chosen in (rows, rows[:7], rows[7:]))

    for name, value in together.items():
        if name not in HOSPITAL_COUNTS:
            np.testing.assert_allclose(first[name] + second[name], value, rtol=0, atol=1e-12, err_msg=name)


def test_hospitals_that_contribute_are_counted_by_stratum_and_modality() -> None:
    values = drawn_values(4)
    members = np.array([[True] * 4, [False] * 4])

    sums = modality_sums(values, members=members, outcome=np.ones(4), additivity_error=np.zeros(4))

    assert sums["sites"].tolist() == [1.0, 0.0]
    assert sums["sites-present"].tolist() == values.present.any(axis=0).tolist()


def test_sums_are_the_arrays_that_may_be_sent() -> None:
    sums = sum_modalities(drawn_values(20), np.arange(20))

    check_arrays(sums, modality_quantities(2, 3), where="test")

    assert set(sums) == set(modality_quantities(2, 3))


def test_sums_of_a_stratum_are_those_of_its_patients() -> None:
    values = drawn_values(20)
    own = np.arange(20) % 3 == 0

    sums = sum_modalities(values, np.arange(20))

    size = np.abs(values.phi[own])
    assert sums["n"].tolist() == [20, 7]
    assert sums["events"].tolist() == [5, 2]  # patients 0 and 12
    np.testing.assert_allclose(sums["phi"][1], values.phi[own].sum(axis=0))
    np.testing.assert_allclose(sums["abs"][1], size.sum(axis=0))
    np.testing.assert_allclose(sums["outer"][1], size.T @ size)
    np.testing.assert_allclose(sums["alone"][1], np.abs(values.alone[own]).sum(axis=0))
    np.testing.assert_allclose(sums["left-out"][1], np.abs(values.left_out[own]).sum(axis=0))
    np.testing.assert_allclose(sums["abs-probability"][1], np.abs(values.phi_probability[own]).sum(axis=0))
    np.testing.assert_allclose(sums["interactions"][1], values.interactions[own].sum(axis=0))
    np.testing.assert_allclose(sums["interactions-abs"][1], np.abs(values.interactions[own]).sum(axis=0))
    np.testing.assert_allclose(sums["se-background"][1], values.se_background[own].sum(axis=0))
    np.testing.assert_array_equal(sums["present"][1], values.present[own].sum(axis=0))


def test_local_shares_are_each_patients_own() -> None:
    values = dataclasses.replace(
        take(drawn_values(20), np.arange(2)), phi=np.array([[1.0, -3.0, 0.0], [0.0, 2.0, 2.0]])
    )

    sums = modality_sums(values, members=np.ones((1, 2), dtype=bool), outcome=np.zeros(2), additivity_error=np.zeros(2))

    np.testing.assert_allclose(sums["local"], [[0.25, 0.75 + 0.5, 0.5]])
    np.testing.assert_allclose(sums["local-square"], [[0.0625, 0.5625 + 0.25, 0.25]])


def test_patient_without_any_attribution_has_no_local_share() -> None:
    values = dataclasses.replace(take(drawn_values(20), np.arange(1)), phi=np.zeros((1, 3)))

    sums = modality_sums(values, members=np.ones((1, 1), dtype=bool), outcome=np.zeros(1), additivity_error=np.zeros(1))

    np.testing.assert_array_equal(sums["local"], np.zeros((1, 3)))


def test_present_sums_leave_out_the_effect_of_lacking_a_modality() -> None:
    values = drawn_values(20)

    sums = sum_modalities(values, np.arange(20))

    size = np.where(values.present, np.abs(values.phi), 0.0)
    np.testing.assert_allclose(sums["abs-present"][0], size.sum(axis=0))
    np.testing.assert_allclose(sums["outer-present"][0], size.T @ size)


def test_stratum_without_patients_gives_zeros() -> None:
    sums = modality_sums(
        drawn_values(5), members=np.zeros((1, 5), dtype=bool), outcome=np.ones(5), additivity_error=np.ones(5)
    )
    assert not any(value.any() for name, value in sums.items() if name != "sites-present")


# ------------------------------------------------------------------------------------------------------------ features


def test_two_hospitals_feature_sums_add_up_to_those_of_their_patients_together() -> None:
    features, found, presence = (AGE, MALE, IMAGE), drawn_features(30), np.random.default_rng(1).normal(size=40)

    def sums(rows: slice, anyone: slice) -> Sums:
        chosen = take_features(found, np.arange(30)[rows])
        return feature_sums("static", features, chosen, presence=presence[anyone])

    together = sums(slice(None), slice(None))
    first, second = sums(slice(0, 11), slice(0, 15)), sums(slice(11, None), slice(15, None))

    for name, value in together.items():
        np.testing.assert_allclose(first[name] + second[name], value, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("n", [0, 30])
def test_feature_sums_are_the_arrays_that_may_be_sent(n: int) -> None:
    features, found = (AGE, MALE, IMAGE), take_features(drawn_features(30), np.arange(n))

    sums = feature_sums("static", features, found, presence=np.zeros(5))

    check_arrays(sums, feature_quantities({"static": features}), where="test")


def test_histogram_counts_patients_by_group_of_value_and_bin_of_phi() -> None:
    assert PHI_EDGES[7:10] == (-0.01, 0.0, 0.01)
    found = one_feature(
        [-3.0, -0.01, 0.0, 0.005, 5.0], known=[True] * 4 + [False], group=[0, 1, 1, 2, 3], z=[-2.0, 0, 0, 1.5, 0]
    )

    histogram = feature_sums("static", (AGE,), found, presence=np.zeros(5))["static/histogram"]

    expected = np.zeros((1, 4, 18))
    expected[0, 0, 0] = 1  # below the lowest edge
    expected[0, 1, 8] = 1  # an edge belongs to the bin above: -0.01
    expected[0, 1, 9] = 1  # and 0
    expected[0, 2, 9] = 1
    expected[0, 3, 17] = 1  # missing value, above the highest edge
    np.testing.assert_array_equal(histogram, expected)


def test_group_sums_are_those_of_the_patients_in_the_group() -> None:
    found = one_feature(
        [1.0, 2.0, -4.0, 8.0], known=[True, True, True, False], group=[0, 0, 2, 3], z=[-2.0, -3.0, 1.0, 0.0]
    )

    sums = feature_sums("static", (AGE,), found, presence=np.zeros(4))

    np.testing.assert_array_equal(sums["static/group-phi"], [[3.0, 0.0, -4.0, 8.0]])
    np.testing.assert_array_equal(sums["static/group-square"], [[5.0, 0.0, 16.0, 64.0]])


def test_sums_of_values_are_over_the_known_and_sums_of_phi_over_all() -> None:
    found = one_feature(
        [1.0, 2.0, -4.0, 8.0], known=[True, True, True, False], group=[0, 0, 2, 3], z=[-2.0, -3.0, 1.0, 9.0]
    )

    sums = feature_sums("static", (AGE,), found, presence=np.array([0.5, -0.25]))

    expected = {"n": 4, "known": 3, "abs": 15, "phi": 7, "square": 85, "z": -4, "z-square": 14, "z-phi": -12}
    assert {name: float(sums[f"static/{name}"][0]) for name in expected} == expected
    assert float(sums["static/se"][0]) == 1.0
    assert (float(sums["static/presence"]), float(sums["static/presence-abs"])) == (0.25, 0.75)


def test_feature_with_fewer_groups_leaves_the_rest_empty() -> None:
    sums = feature_sums("static", (AGE, MALE, IMAGE), drawn_features(30), presence=np.zeros(30))

    sizes = sums["static/histogram"].sum(axis=2)
    assert sizes.shape == (3, 4)
    assert sizes[1, 3] == 0  # a binary has 0, 1 and missing
    assert sizes[2].tolist() == [30, 0, 0, 0]
    np.testing.assert_array_equal(sizes.sum(axis=1), 30)
