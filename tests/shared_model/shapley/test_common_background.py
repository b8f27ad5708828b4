from collections.abc import Callable

import numpy as np
import pytest

from shared_model.errors import StudyError
from shared_model.protocol.quantities import check_arrays
from shared_model.shapley.common_background import (
    BIN_WIDTH,
    LIMIT,
    Columns,
    Draw,
    background_quantities,
    background_sums,
    draw_rows,
    hash_background,
)

Arrays = dict[str, np.ndarray]

TWO = {"a": Columns(3, {}), "b": Columns(2, {})}
NO_LEVELS: Arrays = {}


def drawn_patients(n: int = 4000, *, seed: int = 0) -> tuple[Arrays, Arrays]:
    """Correlated embeddings of modalities a (always there) and b (four in ten lack it), with one skewed column."""
    rng = np.random.default_rng(seed)
    # by default through a basis of equal eigenvalues, in which processors differ
    z = rng.multivariate_normal(np.zeros(5), 0.5 * np.eye(5) + 0.5, size=n, method="cholesky")
    z[:, 1] *= -1
    z[:, 2] = np.exp(z[:, 2])
    z[:, 3] = 5 + 0.5 * z[:, 3]
    here = rng.random(n) < 0.6
    embeddings = {"a": z[:, :3], "b": z[:, 3:] * here[:, None]}
    return {name: value.astype(np.float32) for name, value in embeddings.items()}, {"a": np.ones(n, bool), "b": here}


def sum_patients(
    embeddings: Arrays, present: Arrays, *, columns: dict[str, Columns] | None = None, rows: slice = slice(None)
) -> Arrays:
    chosen = {name: value[rows] for name, value in embeddings.items()}
    return background_sums(
        columns or TWO,
        embeddings=chosen,
        present={name: value[rows] for name, value in present.items()},
        known={name: np.ones(value.shape, dtype=bool) for name, value in chosen.items()},
        levels=NO_LEVELS,
    )


def draw(sums: Arrays, *, n_rows: int = 1000, seed: int = 0, columns: dict[str, Columns] | None = None) -> Draw:
    return draw_rows(columns or TWO, sums, n_rows=n_rows, seed=seed)


# ----------------------------------------------------------------------------------------------------------- the sums


def test_two_hospitals_sums_add_up_to_those_of_their_patients_together() -> None:
    embeddings, present = drawn_patients(200)

    together, first, second = (
        sum_patients(embeddings, present, rows=rows) for rows in (slice(None), slice(0, 70), slice(70, None))
    )

    for name, value in together.items():
        np.testing.assert_allclose(first[name] + second[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


def test_sums_are_the_arrays_that_may_be_sent() -> None:
    embeddings, present = drawn_patients(50)
    check_arrays(sum_patients(embeddings, present), background_quantities(TWO), where="test")


def test_patterns_count_who_has_what() -> None:
    embeddings = {"a": np.ones((4, 3), dtype=np.float32), "b": np.ones((4, 2), dtype=np.float32)}
    present = {"a": np.array([True, True, True, False]), "b": np.array([True, False, False, False])}
    assert sum_patients(embeddings, present)["patterns"].tolist() == [1, 2, 0, 1]  # nobody, a, b, both


def test_value_beyond_the_limit_is_counted_in_the_outermost_bin() -> None:
    embeddings = {"a": np.full((2, 3), 1e6, dtype=np.float32), "b": np.full((2, 2), -1e6, dtype=np.float32)}
    sums = sum_patients(embeddings, {"a": np.ones(2, bool), "b": np.ones(2, bool)})
    assert (sums["a/histogram"][:, -1] == 2).all()
    assert (sums["b/histogram"][:, 0] == 2).all()
    check_arrays(sums, background_quantities(TWO), where="test")


def test_fills_are_not_counted_as_values() -> None:
    embeddings = {"a": np.ones((4, 3), dtype=np.float32), "b": np.ones((4, 2), dtype=np.float32)}
    everybody = {"a": np.ones(4, bool), "b": np.ones(4, bool)}
    known = {"a": np.ones((4, 3), bool), "b": np.array([[True, False]] * 4)}
    sums = background_sums(TWO, embeddings=embeddings, present=everybody, known=known, levels=NO_LEVELS)
    assert sums["b/histogram"].sum(axis=1).tolist() == [4, 0]


# ----------------------------------------------------------------------------------------------------------- the draw


def test_presence_patterns_are_in_proportion_to_one_row() -> None:
    embeddings, present = drawn_patients()

    found = draw(sum_patients(embeddings, present), n_rows=137)

    assert found.present["a"].all()
    assert abs(found.present["b"].sum() - 137 * present["b"].mean()) <= 1
    assert (found.values["b"][~found.present["b"]] == 0).all()


def test_drawn_columns_have_the_patients_quantiles() -> None:
    """Rows stand at equally spaced quantiles of a histogram whose bins are BIN_WIDTH wide on the asinh scale: an error
    of at most one bin and, for the bin's own count, a little of the neighbours."""
    embeddings, present = drawn_patients()

    found = draw(sum_patients(embeddings, present))

    for name in TWO:
        patients = np.arcsinh(embeddings[name][present[name]])
        rows = np.arcsinh(found.values[name][found.present[name]])
        levels = np.linspace(0.05, 0.95, 19)
        np.testing.assert_allclose(
            np.quantile(rows, levels, axis=0), np.quantile(patients, levels, axis=0), atol=BIN_WIDTH
        )


def test_drawn_columns_have_the_patients_mean_and_standard_deviation() -> None:
    """The outermost ten patients of each end count as the tenth, which takes up to a quarter off a long tail's sd."""
    embeddings, present = drawn_patients()

    found = draw(sum_patients(embeddings, present))

    for name in TWO:
        patients, rows = embeddings[name][present[name]], found.values[name][found.present[name]]
        sd = patients.std(axis=0)
        np.testing.assert_allclose(rows.mean(axis=0), patients.mean(axis=0), atol=0.05 * sd.max())
        ordered = np.sort(patients, axis=0)
        inward = np.clip(patients, ordered[9], ordered[-10])
        np.testing.assert_allclose(rows.std(axis=0) / inward.std(axis=0), 1.0, atol=0.05)


def test_no_value_beyond_those_of_ten_patients_is_drawn() -> None:
    embeddings, present = drawn_patients()
    embeddings["a"][:9, 0] = 500.0  # nine patients with a value of their own

    found = draw(sum_patients(embeddings, present))

    tenth = np.sort(embeddings["a"][present["a"], 0])[-10]
    assert np.arcsinh(found.values["a"][:, 0].max()) <= np.arcsinh(tenth) + BIN_WIDTH


def test_drawn_columns_correlate_as_the_patients_do() -> None:
    """Normal scores of 4000 rows have a sampling error of 0.016 (1 - r^2); a copula with the asinh scale's correlation
    misses that of a skewed column by some hundredths more. 0.08 holds both, and is far from the true 0.5."""
    embeddings, present = drawn_patients()
    patients = np.arcsinh(np.concatenate([embeddings["a"], embeddings["b"]], axis=1))[present["b"]]

    found = draw(sum_patients(embeddings, present), n_rows=4000)

    rows = np.arcsinh(np.concatenate([found.values["a"], found.values["b"]], axis=1))[found.present["b"]]
    expected = np.corrcoef(patients.T)
    np.testing.assert_allclose(np.corrcoef(rows.T), expected, atol=0.08)
    assert expected[0, 1] < -0.4
    assert expected[0, 3] > 0.4


def test_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    sums = sum_patients(*drawn_patients(300))
    first, again, other = (draw(sums, n_rows=40, seed=seed) for seed in (5, 5, 6))
    for name in TWO:
        np.testing.assert_array_equal(first.values[name], again.values[name])
        np.testing.assert_array_equal(first.present[name], again.present[name])
    assert not np.array_equal(first.values["a"], other.values["a"])


def test_correlations_that_no_patients_can_have_together_do_not_stop_the_draw() -> None:
    """Pairs of three modalities that are never there together: r(a,b) = r(b,c) = 1 and r(a,c) = -1."""
    columns = {name: Columns(1, {}) for name in "abc"}
    x = np.linspace(-1, 1, 20)
    pairs = [("a", "b", 1.0), ("b", "c", 1.0), ("a", "c", -1.0)]
    embeddings = {name: np.zeros((60, 1), dtype=np.float32) for name in "abc"}
    present = {name: np.zeros(60, dtype=bool) for name in "abc"}
    for i, (first, second, sign) in enumerate(pairs):
        rows = slice(20 * i, 20 * i + 20)
        embeddings[first][rows, 0], embeddings[second][rows, 0] = x, sign * x
        present[first][rows] = present[second][rows] = True
    sums = sum_patients(embeddings, present, columns=columns)

    found = draw(sums, n_rows=30, columns=columns)

    for name in columns:
        assert np.isfinite(found.values[name]).all()
        assert found.values[name].std() > 0.2
    assert sum(found.present[name].sum() for name in columns) == 60


def test_constant_column_stays_where_it_is() -> None:
    embeddings, present = drawn_patients(100)
    embeddings["a"][:, 1] = 3.0

    found = draw(sum_patients(embeddings, present), n_rows=50)

    np.testing.assert_allclose(np.arcsinh(found.values["a"][:, 1]), np.arcsinh(3.0), atol=BIN_WIDTH)
    assert np.isfinite(found.values["a"]).all()


def test_hospital_without_a_modality_changes_its_presence_and_not_its_values() -> None:
    embeddings, present = drawn_patients(400)
    present["b"][:] = True
    embeddings["b"] = embeddings["b"] + (embeddings["b"] == 0) * 5.0
    alone = sum_patients(embeddings, present)
    lacking = sum_patients(embeddings | {"b": 0 * embeddings["b"]}, present | {"b": np.zeros(400, bool)})

    found = draw({name: alone[name] + lacking[name] for name in alone}, n_rows=100)

    assert found.present["b"].sum() == 50
    here = found.values["b"][found.present["b"]]
    np.testing.assert_allclose(here.mean(axis=0), embeddings["b"].mean(axis=0), atol=0.1 * embeddings["b"].std())


def test_no_patients_are_refused() -> None:
    nobody = {name: np.zeros_like(value) for name, value in sum_patients(*drawn_patients(5)).items()}
    with pytest.raises(StudyError, match="expected patients in the training parts"):
        draw(nobody)


def test_one_row_more_or_less_is_shared_out_by_the_largest_remainder() -> None:
    embeddings, present = drawn_patients(3)
    present["b"][:] = [True, False, False]
    found = draw(sum_patients(embeddings, present), n_rows=2)
    assert len(found.present["b"]) == 2
    assert found.present["b"].sum() == 1  # 2/3 of a row with b, 4/3 without: the larger remainder is that of b


# -------------------------------------------------------------------------------------------------------------- the id


def hashed(change: Callable[[Arrays, Arrays], None] | None = None, *, model_hash: str = "m") -> str:
    embeddings, present = drawn_patients(6)
    if change is not None:
        change(embeddings, present)
    return hash_background(model_hash, embeddings, present)


def test_id_changes_with_any_row_and_with_the_model() -> None:
    def nudge(name: str, row: int) -> Callable[[Arrays, Arrays], None]:
        def change(embeddings: Arrays, _: Arrays) -> None:
            embeddings[name][row, 0] = np.nextafter(embeddings[name][row, 0], np.float32(9))

        return change

    def flip(_: Arrays, present: Arrays) -> None:
        present["b"][3] = ~present["b"][3]

    ids = [
        hashed(),
        hashed(model_hash="n"),
        hashed(flip),
        *(hashed(nudge(name, row)) for name in "ab" for row in (0, 5)),
    ]
    assert len(set(ids)) == len(ids)
    assert hashed() == ids[0]


def test_id_does_not_depend_on_the_order_of_modalities() -> None:
    embeddings, present = drawn_patients(6)
    turned = dict(reversed(embeddings.items())), dict(reversed(present.items()))
    assert hash_background("m", *turned) == hash_background("m", embeddings, present)


def test_limit_holds_any_embedding_of_use() -> None:
    assert np.sinh(LIMIT) > 1000
