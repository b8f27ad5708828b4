from collections.abc import Callable

import numpy as np
import pytest
import torch

from shared_model.config import parse_settings
from shared_model.modalities.feature import Feature, is_known
from shared_model.model.fusion import MultimodalModel, build_model
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import Preprocessing, pooled_preprocessing
from shared_model.schema import Schema
from shared_model.shapley.exact import explain_modalities
from shared_model.shapley.feature_values import attribute_features, sum_features
from shared_model.shapley.features import list_features, value_groups
from shared_model.shapley.game import Background, FusionGame, Rows
from shared_model.shapley.summary import Sums
from tests.shared_model.shapley.small_games import scramble

CPU = torch.device("cpu")
LINEAR = parse_settings({"head": "8", "series-embedding": 5, "modalities": "static,vitals,drugs"})
ALL = parse_settings({"head": "8", "series-embedding": 5, "image-embedding": 3})


@pytest.fixture(scope="session")
def preprocessing(small_study: Schema, draw_patients: Callable[..., PatientArrays]) -> Preprocessing:
    return pooled_preprocessing(draw_patients(40), np.arange(40), small_study)


@pytest.fixture(scope="session")
def model(small_study: Schema) -> MultimodalModel:
    return scramble(build_model(small_study, LINEAR))


@pytest.fixture(scope="session")
def features(
    small_study: Schema, model: MultimodalModel, preprocessing: Preprocessing
) -> dict[str, tuple[Feature, ...]]:
    return list_features(model, small_study, preprocessing)


def by_name(features: tuple[Feature, ...], name: str) -> Feature:
    return next(feature for feature in features if feature.name == name)


# -------------------------------------------------------------------------------------------------------- the players


def test_features_of_a_modality_own_each_column_of_its_embedding_once(
    small_study: Schema, preprocessing: Preprocessing
) -> None:
    model = build_model(small_study, ALL)

    found = list_features(model, small_study, preprocessing)

    assert list(found) == ["static", "vitals", "drugs", "hip"]
    for name, own in found.items():
        columns = [column for feature in own for column in feature.columns]
        assert sorted(columns) == list(range(model.widths[name])), name


def test_value_and_missing_flag_are_one_player_and_so_are_the_columns_of_a_category(
    features: dict[str, tuple[Feature, ...]],
) -> None:
    """Columns of the static embedding: age, male, their flags, then a column for each of the three levels of asa."""
    columns = {feature.name: feature.columns for feature in features["static"]}
    assert columns == {"age": (0, 2), "male": (1, 3), "asa": (4, 5, 6)}


def test_channel_of_a_series_has_six_summaries_beside_the_time_pattern_of_the_lstm(
    features: dict[str, tuple[Feature, ...]],
) -> None:
    columns = {feature.name: feature.columns for feature in features["vitals"]}
    assert columns["hr mean"] == (5,)
    assert columns["spo2 mean"] == (6,)
    assert columns["hr sd"] == (5 + 2 * 3,)
    assert columns["spo2 measured"] == (5 + 2 * 5 + 1,)
    assert columns["time pattern"] == (0, 1, 2, 3, 4)
    assert len(columns) == 13


def test_image_is_one_player_without_a_value(small_study: Schema, preprocessing: Preprocessing) -> None:
    image = list_features(build_model(small_study, ALL), small_study, preprocessing)["hip"]
    assert [(feature.name, feature.columns, feature.has_value, feature.n_groups) for feature in image] == [
        ("image", (0, 1, 2), False, 1)
    ]


def test_model_on_the_meta_device_has_the_same_features(
    small_study: Schema, preprocessing: Preprocessing, features: dict[str, tuple[Feature, ...]]
) -> None:
    """The coordinator lists the features of a model whose weights it does not hold."""
    with torch.device("meta"):
        shape = build_model(small_study, LINEAR)
    assert list_features(shape, small_study, preprocessing) == features


# ---------------------------------------------------------------------------------------------------- units and groups


def test_column_in_the_unit_is_the_value_that_the_hospital_measured(
    small_study: Schema,
    model: MultimodalModel,
    preprocessing: Preprocessing,
    features: dict[str, tuple[Feature, ...]],
    draw_patients: Callable[..., PatientArrays],
) -> None:
    arrays = draw_patients(12)
    batch = preprocessing.batch(arrays, np.arange(12), schema=small_study, device=CPU)
    with torch.no_grad():
        embeddings = {name: value.numpy() for name, value in model.encode(batch).items()}

    def in_unit(modality: str, name: str) -> np.ndarray:
        feature, here = by_name(features[modality], name), arrays.present[modality]
        return feature.in_unit(embeddings[modality][here, feature.columns[0]].astype(np.float64))

    hr = arrays.raw["vitals"][arrays.present["vitals"], :, 0]
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(in_unit("vitals", "hr mean"), np.nanmean(hr, axis=1), rtol=1e-5)
        np.testing.assert_allclose(in_unit("vitals", "hr min"), np.nanmin(hr, axis=1), rtol=1e-5)
        np.testing.assert_allclose(in_unit("vitals", "hr sd"), np.nanstd(hr, axis=1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(in_unit("vitals", "hr measured"), (~np.isnan(hr)).mean(axis=1), rtol=1e-6)
    dose = arrays.raw["drugs"][arrays.present["drugs"], 0]
    np.testing.assert_allclose(in_unit("drugs", "opioid"), dose, atol=1e-5)
    measured = ~np.isnan(arrays.numbers[:, 0])
    np.testing.assert_allclose(in_unit("static", "age")[measured], arrays.numbers[measured, 0], rtol=1e-5)


def test_values_are_grouped_by_their_edges_with_missing_ones_last() -> None:
    feature = Feature("age", "years", (0, 1), edges=(-1.0, 1.0), missing_flag=1)
    embedding = np.array([[-1.5, 0], [-1.0, 0], [0.99, 0], [1.0, 0], [0.5, 1]])

    found = value_groups((feature,), embedding=embedding, levels={})

    assert feature.n_groups == 4
    assert found.group[:, 0].tolist() == [0, 1, 1, 2, 3]  # a value on an edge belongs to the group above
    assert found.known[:, 0].tolist() == [True, True, True, True, False]
    assert found.z[:, 0].tolist() == [-1.5, -1.0, 0.99, 1.0, 0.0]


def test_binary_values_are_grouped_by_level_whatever_their_standardisation() -> None:
    mean, sd = 0.02, 0.14
    feature = Feature("male", "", (0, 1), levels=("0", "1"), missing_flag=1, offset=mean, slope=sd)
    embedding = np.array([[(0 - mean) / sd, 0], [(1 - mean) / sd, 0], [0.0, 1]])

    found = value_groups((feature,), embedding=embedding, levels={})

    assert found.group[:, 0].tolist() == [0, 1, 2]


def test_level_of_a_category_is_its_group_and_has_no_order() -> None:
    feature = Feature("asa", "", (0, 1), levels=("1", "2", "3"))

    found = value_groups((feature,), embedding=np.ones((4, 2)), levels={"asa": np.array([2, 0, 3, 1])})

    assert found.group[:, 0].tolist() == [2, 0, 3, 1]
    assert found.known[:, 0].tolist() == [True, True, False, True]
    assert not found.z.any()


def test_summary_of_a_channel_that_was_never_measured_is_not_known() -> None:
    feature = Feature("hr mean", "/min", (0,), edges=(0.0,), measured_count=1)
    assert is_known(feature, np.array([[0.0, 0.0], [0.0, 0.25]])).tolist() == [False, True]


def test_feature_without_a_value_has_one_group_for_all() -> None:
    found = value_groups((Feature("image", "", (0, 1)),), embedding=np.ones((3, 2)), levels={})
    assert found.group[:, 0].tolist() == [0, 0, 0]
    assert not found.known.any()


# ----------------------------------------------------------------------------------------------------- values of many


def rows_of(model: MultimodalModel, arrays: PatientArrays, preprocessing: Preprocessing, schema: Schema) -> Rows:
    batch = preprocessing.batch(arrays, np.arange(len(arrays)), schema=schema, device=CPU)
    with torch.no_grad():
        return Rows(model.encode(batch), batch.present)


def explain_some(
    model: MultimodalModel, patients: Rows, background: Rows, schema: Schema, preprocessing: Preprocessing, ids: str
) -> Sums:
    features, game = list_features(model, schema, preprocessing), FusionGame(model)
    tables = attribute_features(game, patients, Background(background, "b"), features=features, seeds=list(ids))
    levels = {"static": {"asa": np.zeros(len(patients), dtype=np.int64)}}
    return sum_features(tables, patients, features=features, levels=levels)


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_summed_features_and_presence_are_the_summed_values_of_the_modality(
    fusion: str, small_study: Schema, preprocessing: Preprocessing, draw_patients: Callable[..., PatientArrays]
) -> None:
    model = scramble(build_model(small_study, LINEAR.model_copy(update={"fusion": fusion})))
    patients = rows_of(model, draw_patients(6, seed=1), preprocessing, small_study)
    background = rows_of(model, draw_patients(10, seed=2), preprocessing, small_study)

    sums = explain_some(model, patients, background, small_study, preprocessing, "abcdef")

    phi = explain_modalities(FusionGame(model), patients, Background(background, "b")).phi.sum(axis=0)
    for i, name in enumerate(model.modalities):
        assert sums[f"{name}/phi"].sum() + sums[f"{name}/presence"] == pytest.approx(phi[i], abs=1e-11)
        assert (sums[f"{name}/n"] == int(patients.present[name].sum())).all()


def test_values_of_a_patient_do_not_depend_on_who_else_is_explained(
    small_study: Schema,
    model: MultimodalModel,
    preprocessing: Preprocessing,
    draw_patients: Callable[..., PatientArrays],
) -> None:
    patients = rows_of(model, draw_patients(5, seed=1), preprocessing, small_study)
    background = rows_of(model, draw_patients(8, seed=2), preprocessing, small_study)

    def explain(start: int, stop: int) -> Sums:
        chosen = patients.select(slice(start, stop))
        return explain_some(model, chosen, background, small_study, preprocessing, "abcde"[start:stop])

    together, first, second = explain(0, 5), explain(0, 2), explain(2, 5)

    for name, value in together.items():
        np.testing.assert_allclose(value, first[name] + second[name], rtol=1e-12, atol=1e-12, err_msg=name)


def test_linear_head_gives_a_static_variable_its_weight_times_the_distance_from_the_mean(
    small_study: Schema, preprocessing: Preprocessing, draw_patients: Callable[..., PatientArrays]
) -> None:
    settings = LINEAR.model_copy(update={"head": "", "modalities": "static"})
    model = scramble(build_model(small_study, settings))
    patients = rows_of(model, draw_patients(6, seed=1), preprocessing, small_study)
    background = rows_of(model, draw_patients(10, seed=2), preprocessing, small_study)

    sums = explain_some(model, patients, background, small_study, preprocessing, "abcdef")

    weight = dict(model.named_parameters())["head.linear.weight"].detach().double()[0]
    distance = patients.embeddings["static"].double() - background.embeddings["static"].double().mean(dim=0)
    by_column = (distance * weight).numpy()
    age = by_column[:, 0] + by_column[:, 2]  # the value and its missing flag
    assert sums["static/phi"][0] == pytest.approx(age.sum(), abs=1e-12)
    assert sums["static/abs"][0] == pytest.approx(np.abs(age).sum(), abs=1e-12)
    assert sums["static/square"][0] == pytest.approx(np.square(age).sum(), abs=1e-12)
