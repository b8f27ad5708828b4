"""A linear head's values in closed form are those of the enumeration and of the sampler, whoever lacks what."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from shared_model.config import Scalar
from shared_model.modalities.feature import Feature
from shared_model.model.fusion import MultimodalModel
from shared_model.shapley.exact import ModalityValues, explain_modalities
from shared_model.shapley.feature_values import FeatureTable, affordable_patients, attribute_features, share_out
from shared_model.shapley.game import Background, FusionGame, Rows
from shared_model.training.epochs import seeded_rng
from tests.shared_model.shapley.small_games import (
    WIDTHS,
    assert_close,
    drawn,
    game_between,
    lacking,
    make_model,
    make_rows,
)

SEEDS = ["a", "b", "c", "d"]


def _games(model: MultimodalModel) -> tuple[FusionGame, FusionGame]:
    """The game as it is, and one that does not know that its head is linear."""
    general = FusionGame(model)
    general.is_linear = False
    return FusionGame(model), general


def _features(model: MultimodalModel) -> dict[str, tuple[Feature, ...]]:
    """A number and its missing flag (first and last column) are one player, each other column is one."""
    found = {}
    for name, width in model.widths.items():
        groups = [(0, width - 1), *((i,) for i in range(1, width - 1))] if width > 1 else [(0,)]
        found[name] = tuple(Feature(f"f{j}", "", columns) for j, columns in enumerate(groups))
    return found


def _tables(game: FusionGame, patients: Rows, background: Rows, model: MultimodalModel) -> dict[str, FeatureTable]:
    seeds = SEEDS[: len(patients)]
    return attribute_features(game, patients, Background(background, ""), features=_features(model), seeds=seeds)


def _assert_same(found: ModalityValues, expected: ModalityValues) -> None:
    for field in fields(ModalityValues):
        value = getattr(found, field.name)
        if isinstance(value, str | tuple):
            assert value == getattr(expected, field.name)
        else:
            assert_close(value, getattr(expected, field.name))


@pytest.mark.parametrize("n_modalities", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_modality_values_in_closed_form_are_those_of_the_enumeration(n_modalities: int, seed: int) -> None:
    model = make_model(WIDTHS[:n_modalities], seed=seed)
    patients, background = make_rows(model, 6, seed=seed + 10), make_rows(model, 9, seed=seed + 20)
    closed, general = _games(model)

    found = explain_modalities(closed, patients, Background(background, "b"), correction=-0.3)

    _assert_same(found, explain_modalities(general, patients, Background(background, "b"), correction=-0.3))
    assert not found.interactions.any()


@pytest.mark.parametrize("absent", [0.0, 0.3, 0.8])
def test_feature_values_in_closed_form_are_those_of_the_sampler(absent: float) -> None:
    model = make_model(WIDTHS)
    patients, background = make_rows(model, 4, seed=2, absent=absent), make_rows(model, 7, seed=3, absent=absent)
    closed, general = _games(model)

    found, sampled = (_tables(game, patients, background, model) for game in (closed, general))

    for name, table in found.items():
        assert_close(table.phi, sampled[name].phi)
        assert_close(table.presence, sampled[name].presence)
        assert not table.se.any()


def test_features_and_presence_sum_to_the_modality() -> None:
    model, patients, background = drawn(5)
    values = explain_modalities(FusionGame(model), patients, Background(background, "b"))

    for i, table in enumerate(_tables(FusionGame(model), patients, background, model).values()):
        assert_close(table.phi.sum(axis=1) + table.presence, values.phi[:, i])


def test_one_patients_values_are_those_in_the_table_and_no_order_is_drawn() -> None:
    model, patients, background = drawn(5)
    game = FusionGame(model)
    tables = _tables(game, patients, background, model)

    for name, own in _features(model).items():
        for i in range(len(patients)):
            patient = patients.select(slice(i, i + 1))
            found = share_out(
                own,
                game_between(model, name, patient=patient, background=background),
                projection=game.projection(name),
                own=game.fused_input(patient, name)[0],
                reference=game.fused_input(background, name),
                rng=seeded_rng("any"),
            )
            assert_close(found.phi, tables[name].phi[i])
            assert_close(found.presence, tables[name].presence[i])
            assert found.orders == 0
            assert not found.se.any()


def test_modality_that_patient_and_background_lack_gets_exactly_nothing() -> None:
    model, patients, background = drawn(3)
    patients, background = lacking(patients, "e1"), lacking(background, "e1")

    values = explain_modalities(FusionGame(model), patients, Background(background, "b"))
    table = _tables(FusionGame(model), patients, background, model)["e1"]

    for array in (values.phi[:, 1], values.alone[:, 1], values.left_out[:, 1], values.se_background[:, 1]):
        assert not array.any()
    assert not table.phi.any()
    assert not table.presence.any()


def test_feature_in_which_nobody_differs_gets_exactly_nothing() -> None:
    model, patients, background = drawn(4)
    for rows in (patients, background):
        rows.embeddings["e3"][:, 1] = torch.where(rows.present["e3"], 0.1, 0.0)

    table = _tables(FusionGame(model), patients, background, model)["e3"]

    assert np.abs(table.phi[:, 1]).max() < 1e-15
    assert np.abs(table.phi[:, 0]).max() > 0.01


@pytest.mark.parametrize(("settings", "expected"), [({}, True), ({"head": "4"}, False), ({"fusion": "late"}, False)])
def test_closed_form_is_for_a_linear_head_on_early_fusion(settings: dict[str, Scalar], expected: bool) -> None:  # noqa: FBT001
    assert FusionGame(make_model(WIDTHS, seed=1, **settings)).is_linear == expected


def test_features_of_all_patients_are_affordable_with_a_linear_head() -> None:
    linear, perceptron = make_model(WIDTHS), make_model(WIDTHS, head="64,64")
    most = [
        affordable_patients(FusionGame(each), features=_features(each), n_background=500, seconds=1.0)
        for each in (linear, perceptron)
    ]
    assert most[0] == np.iinfo(np.int32).max
    assert most[1] < 1000
