"""From real patients of the small study through sums and draw to rows that patients could be."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from shared_model.config import parse_settings
from shared_model.model.fusion import MultimodalModel, build_model
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import Preprocessing, pooled_preprocessing
from shared_model.protocol.quantities import check_arrays
from shared_model.schema import Events, Schema
from shared_model.shapley.common_background import background_quantities, background_sums, draw_rows
from shared_model.shapley.valid_rows import embedding_columns, known_columns, make_valid

SETTINGS = parse_settings({"modalities": "static,vitals,drugs"})
N_ROWS = 400
Draw = Callable[..., PatientArrays]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What the coordinator has after the draw, and the patients it never sees."""

    patients: PatientArrays
    model: MultimodalModel
    preprocessing: Preprocessing
    embeddings: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    row_present: dict[str, np.ndarray]


def draw_valid(schema: Schema, patients: PatientArrays) -> Drawn:
    chosen = np.arange(len(patients))
    preprocessing = pooled_preprocessing(patients, chosen, schema)
    model = build_model(schema, SETTINGS).eval()
    batch = preprocessing.batch(patients, chosen, schema=schema, device=torch.device("cpu"))
    with torch.no_grad():
        embeddings = {name: value.numpy() for name, value in model.encode(batch).items()}
    present = {name: batch.present[name].numpy() for name in model.modalities}
    columns = embedding_columns(model, schema)
    sums = background_sums(
        columns,
        embeddings=embeddings,
        present=present,
        known=known_columns(embeddings, schema),
        levels={"asa": np.where(patients.levels[:, 0] < 0, 3, patients.levels[:, 0])},
    )
    check_arrays(sums, background_quantities(columns), where="test")
    found = draw_rows(columns, sums, n_rows=N_ROWS, seed=0)
    rows = make_valid(found, sums, model=model, schema=schema, preprocessing=preprocessing)
    return Drawn(patients, model, preprocessing, embeddings, present, rows, found.present)


def with_drugs(schema: Schema, aggregate: str) -> Schema:
    drugs = Events(aggregate=aggregate, items=("opioid", "insulin"))  # type: ignore[arg-type]
    return schema.model_copy(update={"events": {"drugs": drugs}})


@pytest.fixture(scope="module")
def drawn(small_study: Schema, draw_patients: Draw) -> Drawn:
    return draw_valid(small_study, draw_patients(600))


def test_rows_fit_the_model(drawn: Drawn) -> None:
    assert {name: value.shape for name, value in drawn.rows.items()} == {
        name: (N_ROWS, width) for name, width in drawn.model.widths.items()
    }
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in drawn.rows.values())
    for name, value in drawn.rows.items():
        assert not value[~drawn.row_present[name]].any()


def test_each_modality_is_there_as_often_as_among_the_patients(drawn: Drawn) -> None:
    for name, here in drawn.present.items():
        # rows of the 4 patterns that occur are rounded by one each
        assert abs(drawn.row_present[name].mean() - here.mean()) <= 4 / N_ROWS


def test_binary_is_one_of_its_two_values_and_as_frequent(drawn: Drawn) -> None:
    mean, sd = drawn.preprocessing.number_mean[1], drawn.preprocessing.number_sd[1]
    values = drawn.rows["static"][:, 1] * sd + mean
    assert set(np.round(values, 4)) == {0.0, 1.0}
    assert values.mean() == pytest.approx(drawn.patients.numbers[:, 1].mean(), abs=0.02)


def test_missing_flag_is_set_exactly_where_the_value_is_the_fill(drawn: Drawn) -> None:
    fill = (drawn.preprocessing.number_fill[0] - drawn.preprocessing.number_mean[0]) / drawn.preprocessing.number_sd[0]
    flag = drawn.rows["static"][:, 2]
    assert set(flag.tolist()) == {0.0, 1.0}
    np.testing.assert_array_equal(drawn.rows["static"][flag == 1, 0], np.float32(fill))
    assert flag.mean() == pytest.approx(np.isnan(drawn.patients.numbers[:, 0]).mean(), abs=1 / N_ROWS)


def test_number_stays_within_the_range_of_the_schema_and_keeps_its_distribution(drawn: Drawn) -> None:
    known = drawn.rows["static"][:, 2] == 0
    age = drawn.rows["static"][known, 0] * drawn.preprocessing.number_sd[0] + drawn.preprocessing.number_mean[0]
    patients = drawn.patients.numbers[:, 0]
    assert age.min() >= 0
    assert age.max() <= 128
    levels = np.linspace(0.1, 0.9, 9)
    # of 320 rows with an age the quantiles have a sampling error of 0.028 of the range 60 to 100, 1.1 years
    np.testing.assert_allclose(np.quantile(age, levels), np.nanquantile(patients, levels), atol=3.5)


def test_level_of_a_category_is_a_row_of_its_table_and_exactly_as_frequent(drawn: Drawn) -> None:
    table = drawn.model.encoders["static"].tables[0].weight.detach().numpy()  # type: ignore[union-attr,index]
    distance = np.abs(drawn.rows["static"][:, None, 4:7] - table[None]).max(axis=2)
    assert distance.min(axis=1).max() < 1e-6
    counts = np.bincount(distance.argmin(axis=1), minlength=4)
    levels = np.where(drawn.patients.levels[:, 0] < 0, 3, drawn.patients.levels[:, 0])
    expected = np.bincount(levels, minlength=4) / len(levels) * N_ROWS
    np.testing.assert_allclose(counts, expected, atol=1)


@pytest.mark.parametrize("aggregate", ["dose", "count"])
def test_doses_and_counts_are_never_below_zero(aggregate: str, small_study: Schema, draw_patients: Draw) -> None:
    schema = with_drugs(small_study, aggregate)

    found = draw_valid(schema, draw_patients(300))

    here = found.rows["drugs"][found.row_present["drugs"]].astype(np.float64)
    mean, sd = np.array(found.preprocessing.event_mean["drugs"]), np.array(found.preprocessing.event_sd["drugs"])
    amount = np.expm1(here * sd + mean)
    assert amount.min() >= -1e-6
    if aggregate == "count":
        np.testing.assert_allclose(amount, np.rint(amount), atol=1e-5)
    patients = found.patients.raw["drugs"][found.present["drugs"]]
    np.testing.assert_allclose((amount < 1e-6).mean(axis=0), (patients == 0).mean(axis=0), atol=0.02)


def test_item_was_given_or_not(small_study: Schema, draw_patients: Draw) -> None:
    arrays = draw_patients(300)
    schema = with_drugs(small_study, "any")
    given = dataclasses.replace(arrays, raw={**arrays.raw, "drugs": (arrays.raw["drugs"] > 2).astype(np.float32)})

    found = draw_valid(schema, given)

    mean, sd = np.array(found.preprocessing.event_mean["drugs"]), np.array(found.preprocessing.event_sd["drugs"])
    values = found.rows["drugs"][found.row_present["drugs"]].astype(np.float64) * sd + mean
    assert set(np.round(values, 4).flatten()) == {0.0, 1.0}
    np.testing.assert_allclose(values.mean(axis=0), mean, atol=0.02)


def test_item_that_nobody_was_given_stays_at_zero(small_study: Schema, draw_patients: Draw) -> None:
    arrays = draw_patients(100)
    arrays.raw["drugs"][:, 1] = 0.0

    found = draw_valid(small_study, arrays)

    np.testing.assert_array_equal(found.rows["drugs"][:, 1], 0.0)


def test_rare_binary_keeps_both_its_values(small_study: Schema, draw_patients: Draw) -> None:
    arrays = draw_patients(600)
    arrays.numbers[:, 1] = np.arange(600) % 100 == 0  # 1 %: the value 1 is ten standard deviations away

    found = draw_valid(small_study, arrays)

    values = found.rows["static"][:, 1] * found.preprocessing.number_sd[1] + found.preprocessing.number_mean[1]
    assert values.mean() == pytest.approx(0.01, abs=1.5 / N_ROWS)


def test_missing_number_is_not_known_and_all_else_is(small_study: Schema) -> None:
    static = np.array([[0.5, 1.0, 0.0, 1.0, 9.0, 9.0]], dtype=np.float32)  # age, male, their flags, asa
    known = known_columns({"static": static, "drugs": np.ones((1, 2), dtype=np.float32)}, small_study)
    assert known["static"].tolist() == [[True, False, True, True, True, True]]
    assert known["drugs"].all()
