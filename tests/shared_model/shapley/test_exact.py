from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from shared_model.config import parse_settings
from shared_model.errors import StudyError
from shared_model.model.batch import Batch
from shared_model.model.fusion import MultimodalModel, build_model
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import pooled_preprocessing
from shared_model.schema import Schema
from shared_model.shapley.exact import check_additivity
from shared_model.shapley.game import FusionGame, Rows
from tests.shared_model.shapley.small_games import (
    WIDTHS,
    assert_close,
    coalition_values,
    drawn,
    explain,
    fuse,
    join_rows,
    lacking,
    make_model,
    make_rows,
    mean_values,
    scramble,
    shapley_over_orders,
)

HEADS = [("early", "", "none"), ("early", "8", "none"), ("early", "8,4", "none"), ("early", "8,4", "layer")]
MODELS = [*HEADS, ("late", "8", "none")]

of_every_model = pytest.mark.parametrize(("fusion", "head", "norm"), MODELS)
of_any_number = pytest.mark.parametrize("n_modalities", [1, 2, 3, 5])


# ------------------------------------------------------------------------------------------------- against brute force


@of_every_model
@of_any_number
def test_phi_is_the_mean_contribution_over_all_orders(n_modalities: int, fusion: str, head: str, norm: str) -> None:
    model, patients, background = drawn(n_modalities, fusion=fusion, head=head, head_norm=norm)
    values = mean_values(coalition_values(model, patients, background))

    found = explain(model, patients, background)

    assert_close(found.phi, shapley_over_orders(values, model.modalities))


@of_every_model
@of_any_number
def test_phi_sums_to_the_logit_less_its_mean_over_the_background(
    n_modalities: int, fusion: str, head: str, norm: str
) -> None:
    model, patients, background = drawn(n_modalities, fusion=fusion, head=head, head_norm=norm)

    found = explain(model, patients, background)

    expected = fuse(model, patients) - fuse(model, background).mean()
    assert_close(found.phi.sum(axis=1), expected.numpy())
    assert_close(found.logit - found.base_logit, expected.numpy())


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_phi_is_that_of_the_whole_model_on_hybrid_patients(
    fusion: str, small_study: Schema, draw_patients: Callable[..., PatientArrays]
) -> None:
    """Encoders included, with an image, a series, a static and an event modality; the model runs in float32."""
    arrays, rows = draw_patients(12), np.arange(12)
    preprocessing = pooled_preprocessing(arrays, rows, small_study)
    model = build_model(small_study, parse_settings({"fusion": fusion, "head": "8"}))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(torch.linspace(-0.5, 0.5, parameter.numel()).reshape(parameter.shape))
    model.eval()
    batch = preprocessing.batch(arrays, rows, schema=small_study, device=torch.device("cpu"))
    own, other = [0, 1, 5, 9], [2, 3, 4]
    patients, background = _encode(model, batch, own), _encode(model, batch, other)

    found = explain(model, patients, background)

    values = {}
    for mask in range(16):
        members = frozenset(name for i, name in enumerate(model.modalities) if mask >> i & 1)
        pairs = [(i, j) for i in own for j in other]
        with torch.no_grad():
            logit = model(_hybrid(batch, pairs, members, small_study)).double()
        values[members] = logit.reshape(len(own), len(other)).mean(dim=1).numpy()
    np.testing.assert_allclose(found.phi, shapley_over_orders(values, model.modalities), atol=5e-6)
    assert np.abs(found.phi).max() > 0.05


def _encode(model: MultimodalModel, batch: Batch, rows: list[int]) -> Rows:
    with torch.no_grad():
        embeddings = model.encode(batch)
    return Rows(embeddings, batch.present).select(torch.tensor(rows))


def _hybrid(batch: Batch, pairs: list[tuple[int, int]], members: frozenset[str], schema: Schema) -> Batch:
    """Patients with the inputs of `members` from the first of each pair, the others from the second."""
    first, second = (torch.tensor(rows) for rows in zip(*pairs, strict=True))

    def rows_of(name: str) -> Tensor:
        return first if name in members else second

    return Batch(
        numbers=batch.numbers[rows_of("static")],
        levels=batch.levels[rows_of("static")],
        inputs={name: value[rows_of(name)] for name, value in batch.inputs.items()},
        present={name: batch.present[name][rows_of(name)] for name in schema.modalities},
        outcome=batch.outcome[first],
    )


def test_linear_head_gives_each_modality_its_weights_times_the_distance_from_the_mean() -> None:
    model = make_model(WIDTHS[:3], head="")
    patients, background = make_rows(model, 4, seed=2, absent=0), make_rows(model, 7, seed=3, absent=0)

    found = explain(model, patients, background)

    weight = dict(model.named_parameters())["head.linear.weight"].detach().double()[0]
    start = 0
    for i, (name, width) in enumerate(model.widths.items()):
        distance = patients.embeddings[name].double() - background.embeddings[name].double().mean(dim=0)
        assert_close(found.phi[:, i], distance @ weight[start : start + width])
        start += width


# -------------------------------------------------------------------------------------------------------------- axioms


@of_every_model
def test_modality_that_patient_and_background_all_lack_gets_exactly_nothing(fusion: str, head: str, norm: str) -> None:
    model, patients, background = drawn(5, fusion=fusion, head=head, head_norm=norm)
    patients, background = lacking(patients, "e1", slice(0, 2)), lacking(background, "e1")

    found = explain(model, patients, background, correction=0.3)

    for part in (found.phi, found.phi_probability, found.alone, found.left_out, found.se_background):
        assert (part[:2, 1] == 0).all()
    np.testing.assert_allclose(found.interactions[:2, 1], 0.0, atol=1e-14)


def test_modality_without_weights_gets_nothing() -> None:
    model, patients, background = drawn(3, head="8,4")
    with torch.no_grad():
        for layer in ("head.linear.weight", "head.perceptron.0.weight"):
            dict(model.named_parameters())[layer][:, 2:5] = 0.0  # the columns of e1

    found = explain(model, patients, background)

    np.testing.assert_allclose(found.phi[:, 1], 0.0, atol=1e-15)
    assert (np.abs(found.phi[:, [0, 2]]) > 1e-3).all()


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_modalities_that_are_alike_get_the_same(fusion: str) -> None:
    model = make_model((3, 2, 3), fusion=fusion, head="8")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        if fusion == "early":
            for layer in ("head.linear.weight", "head.perceptron.0.weight"):
                parameters[layer][:, 5:8] = parameters[layer][:, 0:3]
        else:
            parameters["head.log_weights"][2] = parameters["head.log_weights"][0]
            for part in ("weight", "bias"):
                parameters[f"unimodal.e2.{part}"].copy_(parameters[f"unimodal.e0.{part}"])
        parameters["absent.e2"].copy_(parameters["absent.e0"])
    patients, background = (
        Rows(
            rows.embeddings | {"e2": rows.embeddings["e0"]},  # type: ignore[operator]
            rows.present | {"e2": rows.present["e0"]},  # type: ignore[operator]
        )
        for rows in (make_rows(model, 5, seed=1), make_rows(model, 6, seed=2))
    )

    found = explain(model, patients, background)

    assert_close(found.phi[:, 0], found.phi[:, 2])
    assert np.abs(found.phi[:, 0] - found.phi[:, 1]).min() > 1e-3


def test_phi_against_two_backgrounds_joined_is_the_weighted_mean_of_both() -> None:
    """Linearity: the joined game is the mean of the games against each row."""
    model, patients, background = drawn(5)
    more = make_rows(model, 3, seed=9)

    joined = explain(model, patients, join_rows(background, more)).phi

    apart = [explain(model, patients, rows).phi for rows in (background, more)]
    assert_close(joined, (7 * apart[0] + 3 * apart[1]) / 10)


def test_phi_doubles_with_the_output_layers() -> None:
    model, patients, background = drawn(3, head="8")
    before = explain(model, patients, background).phi
    with torch.no_grad():
        for layer in ("head.linear.weight", "head.perceptron.2.weight"):
            dict(model.named_parameters())[layer].mul_(2)

    assert_close(explain(model, patients, background).phi, 2 * before)


# ------------------------------------------------------------------------------------------------ memory and refusals


@pytest.mark.parametrize("chunk", [1, 700, 5000])
def test_size_of_a_chunk_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, patients, background = drawn(5)
    whole = explain(model, patients, background)

    monkeypatch.setattr("shared_model.shapley.exact._CHUNK", chunk)
    found = explain(model, patients, background)

    for part in ("phi", "phi_probability", "interactions", "alone", "left_out"):
        assert_close(getattr(found, part), getattr(whole, part))
    np.testing.assert_allclose(found.se_background, whole.se_background, atol=1e-8)


def test_largest_array_stays_within_a_chunk_however_many_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(WIDTHS, head="8")
    sizes = []
    read_out = FusionGame.read_out

    def watched(self: FusionGame, total: Tensor) -> Tensor:
        sizes.append(total.numel())
        return read_out(self, total)

    monkeypatch.setattr("shared_model.shapley.exact._CHUNK", 4000)
    monkeypatch.setattr(FusionGame, "read_out", watched)
    explain(model, make_rows(model, 60, seed=1), make_rows(model, 50, seed=2))

    assert max(sizes) <= 4000
    assert sum(sizes) == 60 * 50 * 32 * 9  # every pair, coalition and part once


def test_thirteen_modalities_are_refused() -> None:
    FusionGame(make_model((1,) * 12))
    with pytest.raises(StudyError, match="at most 12 modalities, got 13"):
        FusionGame(make_model((1,) * 13))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["patient", "background"])
def test_embedding_that_is_not_finite_is_refused(where: str, value: float) -> None:
    model, patients, background = drawn(3)
    spoiled = patients if where == "patient" else background
    spoiled.embeddings["e1"][0, 0] = value

    with pytest.raises(StudyError, match="embedding of e1"):
        explain(model, patients, background)


@pytest.mark.parametrize("empty", ["patients", "background"])
def test_nobody_to_explain_or_to_compare_with_is_refused(empty: str) -> None:
    model, patients, background = drawn(3)
    none = slice(0, 0)

    with pytest.raises(StudyError, match="expected patients and background rows"):
        explain(
            model,
            patients.select(none) if empty == "patients" else patients,
            background.select(none) if empty == "background" else background,
        )


def test_model_is_not_changed_by_an_explanation() -> None:
    model, patients, background = drawn(3)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    explain(model, patients, background)

    assert model.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_additivity_error_is_relative_to_the_sizes_of_phi() -> None:
    model, patients, background = drawn(3)
    found = explain(model, patients, background)

    error = check_additivity(found, logit=found.logit + 1e-6, base_logit=found.base_logit)

    np.testing.assert_allclose(error, 1e-6 / (1 + np.abs(found.phi).sum(axis=1)), rtol=1e-6)


@pytest.mark.parametrize("gap", [1e-3, np.nan])
def test_values_that_do_not_add_up_to_the_prediction_are_refused(gap: float) -> None:
    model, patients, background = drawn(3)
    found = explain(model, patients, background)
    wrong = found.logit.copy()
    wrong[2] += gap

    with pytest.raises(StudyError, match="Do not use these explanations"):
        check_additivity(found, logit=wrong, base_logit=found.base_logit)


def test_dropout_is_off_in_an_explanation() -> None:
    model = scramble(make_model((2, 2), head="8", dropout=0.5)).train()
    patients, background = make_rows(model, 3, seed=1), make_rows(model, 4, seed=2)

    np.testing.assert_array_equal(explain(model, patients, background).phi, explain(model, patients, background).phi)
