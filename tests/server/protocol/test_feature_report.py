from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from server.protocol.differencing import Band
from server.protocol.feature_report import describe_features
from server.protocol.reduce import PlainSum
from shared_model.modalities.feature import Feature
from shared_model.privacy.suppression import SmallCellRule
from shared_model.shapley.features import FeatureValues
from shared_model.shapley.summary import FeaturePhi, feature_quantities, feature_sums

AGE = Feature("age", "years", (0, 1), edges=(-1.0, 1.0), offset=80.0, slope=8.0, missing_flag=1)
MALE = Feature("male", "", (0, 1), levels=("0", "1"), missing_flag=1)
ASA = Feature("asa", "", (0,), levels=("1", "2", "3"))
RULE = SmallCellRule()
HIDDEN = {"suppressed": True}


def report(
    feature: Feature,
    phi: np.ndarray,
    z: np.ndarray,
    group: np.ndarray,
    *,
    hospitals: int = 1,
    bands: Mapping[str, Sequence[Band]] = MappingProxyType({}),
    without_groups: Sequence[str] = (),
    lacking: int = 0,
) -> dict[str, Any]:
    """What is shown of one feature whose sums travelled from some hospitals of the same patients."""
    known = group < feature.n_groups - 1
    found = FeaturePhi(
        phi[:, None],
        np.zeros((len(phi), 1)),
        FeatureValues(np.where(known, z, 0.0)[:, None], known[:, None], group[:, None]),
    )
    total = PlainSum(feature_quantities({"static": [feature]}))
    for _ in range(hospitals):
        total.add(feature_sums("static", [feature], found, presence=np.zeros(len(phi))), where="test")
    n_patients = float(len(phi) * hospitals + lacking)
    sums = {**total.total(), "n": np.array([n_patients]), "feature-patients": np.array(n_patients)}
    told = describe_features("static", [feature], sums, RULE, bands=bands, without_groups=without_groups)
    return told[0]


def drawn(n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """phi, z and group of a number; a fourth of the values is missing, with a phi far from the others'."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=n)
    missing = np.arange(n) % 4 == 0
    phi = np.where(missing, 5.0, 0.3 * z + 0.2 * rng.normal(size=n))
    return phi, z, np.where(missing, 3, np.searchsorted((-1.0, 1.0), z, side="right"))


def test_correlation_is_that_of_the_patients_with_a_known_value() -> None:
    phi, z, group = drawn()
    known = group < 3

    found = report(AGE, phi, z, group)["correlation"]

    assert found == pytest.approx(np.corrcoef(z[known], phi[known])[0, 1], abs=1e-4)


def test_correlation_is_that_of_all_when_no_value_is_missing() -> None:
    _, z, _ = drawn()
    phi, group = np.tanh(z), np.searchsorted((-1.0, 1.0), z, side="right")

    assert report(AGE, phi, z, group)["correlation"] == pytest.approx(np.corrcoef(z, phi)[0, 1], abs=1e-4)


@pytest.mark.parametrize("hospitals", [1, 3, 7])
@pytest.mark.parametrize("z", [0.3, -1.7, 2.9])
def test_constant_value_or_constant_phi_has_no_correlation(z: float, hospitals: int) -> None:
    """Sums travel in fixed point, so a variance of zero arrives as a small number, of either sign."""
    group = np.ones(30, dtype=np.int64)
    some = np.random.default_rng(0).normal(size=30)

    assert report(MALE, np.full(30, 0.123), np.full(30, z), group, hospitals=hospitals)["correlation"] is None
    assert report(MALE, some, np.full(30, z), group, hospitals=hospitals)["correlation"] is None
    assert report(AGE, np.full(30, 0.123), some, group, hospitals=hospitals)["correlation"] is None


def test_category_has_no_correlation() -> None:
    group = np.arange(60) % 3
    assert report(ASA, np.linspace(-1, 1, 60), np.zeros(60), group)["correlation"] is None


def test_groups_tell_mean_and_spread_of_phi_in_the_unit_of_the_feature() -> None:
    phi, z, group = drawn()

    groups = report(AGE, phi, z, group)["groups"]

    assert [group.get("range", group.get("level")) for group in groups] == [
        [None, 72.0],
        [72.0, 88.0],
        [88.0, None],
        "missing",
    ]
    own = phi[group == 1]
    assert groups[1]["n"] == len(own)
    assert groups[1]["mean_phi"] == pytest.approx(own.mean(), abs=1e-6)
    assert groups[1]["sd_phi"] == pytest.approx(own.std(), abs=1e-5)


def test_mean_of_phi_comes_with_the_interval_of_its_size() -> None:
    phi, z, group = drawn()

    entry = report(AGE, phi, z, group)

    size = np.abs(phi)
    half = 1.959964 * size.std(ddof=1) / np.sqrt(len(phi))
    assert entry["mean_abs"] == pytest.approx(size.mean(), abs=1e-8)
    assert entry["mean_abs_ci"] == pytest.approx([size.mean() - half, size.mean() + half], abs=1e-5)
    assert entry["mean_phi"] == pytest.approx(phi.mean(), abs=1e-8)


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ([40, 30, 0], [True, True, False]),  # nobody is missing: that is no secret
        ([40, 30, 4], [True, False, False]),  # 4 are hidden, and the next smallest beside them
        ([40, 6, 6], [True, False, False]),  # 6 and 6 are 12 together
    ],
)
def test_small_group_is_hidden_with_another(sizes: list[int], shown: list[bool]) -> None:
    group = np.repeat(np.arange(3), sizes)

    entry = report(MALE, np.linspace(1.0, 1.1, len(group)), np.zeros(len(group)), group)

    assert [HIDDEN.items() <= row.items() for row in entry["groups"]] == [not there for there in shown]
    if any(shown):
        assert entry["histogram"]["groups"] == np.flatnonzero(shown).tolist()
    else:
        assert entry["histogram"] == HIDDEN


@pytest.mark.parametrize("sizes", [(40, 3, 3), (66, 4, 0)])  # 3 and 3 are 6 together
def test_feature_is_hidden_with_all_its_groups(sizes: Sequence[int]) -> None:
    group = np.repeat(np.arange(3), sizes)
    assert report(MALE, np.linspace(1.0, 1.1, len(group)), np.zeros(len(group)), group) == {"name": "male", **HIDDEN}


def test_feature_of_few_patients_is_hidden() -> None:
    assert report(AGE, np.ones(9), np.ones(9), np.ones(9, dtype=np.int64)) == {"name": "age", **HIDDEN}


@pytest.mark.parametrize("n", [20, 59, 75, 400])
def test_histogram_has_a_tenth_of_the_patients_cells_and_holds_the_shown_groups(n: int) -> None:
    group = np.arange(n) % 2
    phi = np.random.default_rng(0).normal(size=n) / 10

    histogram = report(MALE, phi, group.astype(np.float64), group)["histogram"]

    if n // 10 < 4:  # two groups with fewer than two bins each
        assert histogram == HIDDEN
        return
    counts = np.array(histogram["counts"])
    assert counts.size <= n // 10
    edges = [-np.inf, *histogram["phi_edges"], np.inf]
    assert histogram["groups"]
    for g, row in zip(histogram["groups"], counts, strict=True):
        np.testing.assert_array_equal(row, np.histogram(phi[group == g], bins=edges)[0])
        assert set(row[row < 10]) <= {0}


def test_group_with_a_cell_of_few_is_left_out_of_the_histogram() -> None:
    group = np.repeat(np.arange(2), (40, 40))
    phi = np.repeat((-0.2, 0.2, 0.2), (40, 39, 1))
    one_apart = np.where(np.arange(80) == 79, -0.2, phi)

    assert report(MALE, phi, np.zeros(80), group)["histogram"]["groups"] == [0, 1]
    assert report(MALE, one_apart, np.zeros(80), group)["histogram"]["groups"] == [0]


def test_groups_cut_beside_a_stratum_that_is_shown_are_left_out_when_a_few_lie_between() -> None:
    # 40 below 72, 45 from 72 to 88 and 35 from 88 on; of those from 88 on, 3 are below 89
    z = np.concatenate([np.full(40, -1.5), np.full(45, 0.0), np.full(3, 1.05), np.full(32, 1.5)])
    phi, group = 0.1 * z, np.searchsorted((-1.0, 1.0), z, side="right")
    few = {"age": [Band(-np.inf, 89.0, 88), Band(89.0, np.inf, 32)]}
    equal = {"age": [Band(-np.inf, 88.0, 85), Band(88.0, np.inf, 35)]}

    assert report(AGE, phi, z, group, bands=few)["groups"] == []
    assert report(AGE, phi, z, group, bands=few)["histogram"] == HIDDEN
    assert [entry.get("n") for entry in report(AGE, phi, z, group, bands=equal)["groups"]] == [40, 45, 35, None]


# ----------------------------------------------------------------------------- a linear head, where a level has one phi


LEVEL_PHI = np.array([-0.20, 0.61, 0.75, 1.30, 0.30])  # of the levels 1 to 4 and of a missing value
FOUR = Feature("asa", "", (0,), levels=("1", "2", "3", "4"))


def linear(sizes: Sequence[int]) -> dict[str, Any]:
    group = np.repeat(np.arange(5), sizes)
    return report(FOUR, LEVEL_PHI[group], np.zeros(len(group)), group)


@pytest.mark.parametrize("hidden", [(4, 1, 6), (6, 5, 0), (5, 6, 0), (0, 2, 9), (3, 4, 4)])
def test_hidden_values_of_other_sizes_are_told_alike(hidden: Sequence[int]) -> None:
    """Of eleven patients nothing is told but that they have some of these levels: nobody may have one."""
    first, second = linear((60, 40, 1, 1, 9)), linear((60, 40, *hidden))

    assert [HIDDEN.items() <= row.items() for row in first["groups"]] == [False, False, True, True, True]
    for part in ("mean_abs", "mean_phi"):
        assert first[part] == pytest.approx(second[part], abs=1e-7), part
    for part in ("n", "mean_abs_ci", "hidden_values", "groups", "histogram"):
        assert first[part] == second[part], part
    assert (first["n"], first["hidden_values"]) == (100, True)
    assert first["mean_abs_ci"] is not None


@pytest.mark.parametrize("sizes", [(60, 40, 1, 1, 9), (900, 600, 5, 6, 0)])
def test_means_are_over_the_patients_whose_level_is_shown(sizes: Sequence[int]) -> None:
    entry = linear(sizes)

    shown = np.array([*sizes[:2], 0, 0, 0])
    assert entry["mean_phi"] == pytest.approx(shown @ LEVEL_PHI / shown.sum(), abs=1e-7)
    assert entry["mean_abs"] == pytest.approx(shown @ np.abs(LEVEL_PHI) / shown.sum(), abs=1e-7)


def test_means_without_hidden_values_are_those_of_all_patients() -> None:
    sizes = np.array((900, 600, 12, 10, 28))

    entry = linear(sizes.tolist())

    assert (entry["n"], entry["hidden_values"]) == (1550, False)
    assert entry["mean_phi"] == pytest.approx(sizes @ LEVEL_PHI / 1550, abs=1e-8)
    assert entry["mean_abs"] == pytest.approx(sizes @ np.abs(LEVEL_PHI) / 1550, abs=1e-8)
    assert entry["mean_abs_ci"] is not None


def test_feature_whose_levels_are_all_hidden_is_not_told() -> None:
    """Three of 1,503 patients have the level: with the number of all, the others' would give them away."""
    group = np.repeat(np.arange(2), (1500, 3))

    entry = report(MALE, np.array([-0.002, 0.998])[group], group.astype(float), group)

    assert entry == {"name": "male", **HIDDEN}


def test_levels_beside_a_hidden_stratum_are_not_told_in_a_mean() -> None:
    """The groups of a stratum's column would give it back, and so would the mean, which rests on their sizes."""
    group = np.repeat(np.arange(2), (80, 40))
    phi, z = np.array([-0.2, 0.4])[group], group.astype(float)

    assert report(MALE, phi, z, group)["mean_phi"] == pytest.approx(0.0, abs=1e-8)
    assert report(MALE, phi, z, group, without_groups=("male",)) == {"name": "male", **HIDDEN}


@pytest.mark.parametrize("feature", [FOUR, replace(AGE, logarithmic=True)])
def test_means_of_other_heads_are_over_the_patients_who_are_shown(feature: Feature) -> None:
    """Patients who share a value differ in phi."""
    sizes = (60, 40, 1, 1, 9) if feature is FOUR else (60, 200, 4, 30)  # 30 are hidden with the 4 above
    group = np.repeat(np.arange(len(sizes)), sizes)
    phi = np.random.default_rng(5).normal(scale=0.4, size=len(group))

    entry = report(feature, phi, np.zeros(len(group)), group)

    shown = phi[group < 2]
    assert (entry["n"], entry["hidden_values"]) == (len(shown), True)
    assert entry["mean_phi"] == pytest.approx(shown.mean(), abs=1e-7)
    assert entry["mean_abs"] == pytest.approx(np.abs(shown).mean(), abs=1e-7)
    low, high = entry["mean_abs_ci"]
    assert low < entry["mean_abs"] < high


def test_mean_of_a_number_is_over_all_patients() -> None:
    """It tells the mean of the hidden values, not how many have which; without the largest it would be far off."""
    group = np.repeat(np.arange(4), (60, 200, 4, 30))
    phi = np.array([-0.3, 0.1, 1.5, 0.2])[group]

    entry = report(AGE, phi, np.zeros(len(group)), group)

    assert (entry["n"], entry["hidden_values"]) == (294, False)
    assert entry["mean_abs"] == pytest.approx(np.abs(phi).mean(), abs=1e-7)


def test_level_that_is_shown_alone_has_no_interval() -> None:
    group = np.repeat(np.arange(3), (60, 20, 4))  # of 20 and 4 one would give the other
    entry = report(MALE, np.array([-0.1, 0.4, 0.2])[group], group.astype(float), group)
    assert (entry["n"], entry["mean_abs"], entry["mean_abs_ci"]) == (60, pytest.approx(0.1, abs=1e-7), None)


@pytest.mark.parametrize(("feature", "told"), [(MALE, False), (replace(AGE, logarithmic=True), False), (AGE, True)])
def test_levels_and_counts_of_a_modality_that_few_lack_are_not_told(feature: Feature, *, told: bool) -> None:
    """Their means are of few values of phi, and would tell how many lack it."""
    group = np.repeat(np.arange(2), (60, 40))
    entry = report(feature, np.array([-0.1, 0.4])[group], group.astype(float), group, lacking=4)
    assert (entry == {"name": feature.name, **HIDDEN}) is not told
    assert entry.get("n") is None
