from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shared_model.config import parse_settings
from shared_model.model.encoders import SeriesEncoder
from shared_model.model.encoders.series import time_since_measured
from shared_model.model.fusion import MultimodalModel, build_model
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import pooled_preprocessing
from shared_model.schema import Schema
from shared_model.shapley.game import ModalityGame, Rows
from shared_model.shapley.owen import owen_values
from shared_model.shapley.paths import FIRST_POINTS, RESIDUAL_TOLERANCE, integrated_gradients
from shared_model.shapley.segments import (
    Recordings,
    SwitchedCells,
    segment_of_step,
    with_pattern_of,
)
from tests.shared_model.shapley.small_games import game_between, make_rows, scramble

NAME = "vitals"
STEPS, CHANNELS = 4, 2  # of the small study


@dataclass(frozen=True)
class Comparison:
    """One patient's recording against some others, and the game of its modality."""

    game: ModalityGame
    encoder: SeriesEncoder
    references: Recordings
    own: Recordings


@pytest.fixture
def comparison(small_study: Schema) -> Comparison:
    return _compare(small_study, n=5)


def _recordings(n: int, *, seed: int, measured: float = 0.7) -> Recordings:
    generator = torch.Generator().manual_seed(seed)
    known = torch.rand(n, STEPS, CHANNELS, generator=generator) < measured
    values = torch.randn(n, STEPS, CHANNELS, generator=generator, dtype=torch.float64)
    return Recordings(values.where(known, 0.0), known)


def _compare(study: Schema, *, n: int, seed: int = 3, **settings: int) -> Comparison:
    chosen = {"series-embedding": 3, **{key.replace("_", "-"): value for key, value in settings.items()}}
    return _comparison_of(scramble(build_model(study, parse_settings({"head": "8", **chosen})), seed=seed), n=n)


@torch.no_grad()
def _with_embedding(rows: Rows, encoder: SeriesEncoder, recordings: Recordings) -> Rows:
    return Rows({**rows.embeddings, NAME: encoder(recordings.inputs())}, rows.present)


@torch.no_grad()
def _g(comparison: Comparison, recordings: Recordings) -> Tensor:
    """g_m of one recording for each background row."""
    return comparison.game.of_embedding(comparison.encoder(recordings.inputs()))


def test_time_since_measured_is_what_preprocessing_computes(
    small_study: Schema, draw_patients: Callable[..., PatientArrays]
) -> None:
    arrays = draw_patients(30)
    rows = np.arange(30)
    preprocessing = pooled_preprocessing(arrays, rows, small_study)
    batch = preprocessing.batch(arrays, rows, schema=small_study, device=torch.device("cpu"))
    inputs = batch.inputs[NAME][batch.present[NAME]]

    recordings = Recordings.from_inputs(inputs)

    torch.testing.assert_close(recordings.inputs().float(), inputs, rtol=0, atol=0)


def test_time_since_measured_by_hand() -> None:
    measured = torch.tensor([[[False], [True], [False], [False]]])

    assert time_since_measured(measured).flatten().tolist() == [1.0, 0.0, 0.25, 0.5]


def test_segments_share_out_the_exact_value_of_the_modality(comparison: Comparison) -> None:
    switched = SwitchedCells(
        comparison.game,
        comparison.encoder,
        start=comparison.references,
        end=comparison.own,
        n_segments=2,
    )

    found = owen_values(comparison.game, switched, rng=np.random.default_rng(0), max_rounds=2)

    assert found.phi.sum() == pytest.approx(float(comparison.game.values().mean()), abs=1e-12)


@pytest.mark.parametrize("part", [{"series_embedding": 0}, {"series_summaries": False}], ids=["no LSTM", "LSTM alone"])
def test_segments_share_out_the_value_of_an_encoder_with_one_part_only(
    small_study: Schema, part: dict[str, int]
) -> None:
    comparison = _compare(small_study, n=5, **part)
    switched = SwitchedCells(
        comparison.game, comparison.encoder, start=comparison.references, end=comparison.own, n_segments=2
    )
    found = owen_values(comparison.game, switched, rng=np.random.default_rng(0), max_rounds=2)
    assert found.phi.sum() == pytest.approx(float(comparison.game.values().mean()), abs=1e-12)
    assert np.abs(found.phi).sum() > 0.01


def test_segments_converge_to_the_mean_over_all_orders(small_study: Schema) -> None:
    comparison = _compare(small_study, n=3)
    segment = segment_of_step(n_steps=STEPS, n_segments=2)
    players = CHANNELS * segment.unsqueeze(1) + torch.arange(CHANNELS)  # four players
    exact = np.zeros(4)
    for order in permutations(range(4)):
        mixed, before = comparison.references, _g(comparison, comparison.references)
        for player in order:
            cells = players == player
            mixed = Recordings(
                torch.where(cells, comparison.own.values, mixed.values),
                torch.where(cells, comparison.own.measured, mixed.measured),
            )
            after = _g(comparison, mixed)
            exact[player] += float((after - before).mean()) / 24
            before = after
    switched = SwitchedCells(
        comparison.game,
        comparison.encoder,
        start=comparison.references,
        end=comparison.own,
        n_segments=2,
    )

    found = owen_values(comparison.game, switched, rng=np.random.default_rng(0), tolerance=0.0, max_rounds=400)

    np.testing.assert_allclose(found.phi, exact, atol=5 * found.se.max())
    assert found.se.max() < 0.02 * np.abs(exact).mean()


def test_control_function_leaves_the_estimate(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    switched = SwitchedCells(
        comparison.game, comparison.encoder, start=comparison.references, end=comparison.own, n_segments=2
    )
    controlled = owen_values(comparison.game, switched, rng=np.random.default_rng(0), tolerance=0.0, max_rounds=50)
    monkeypatch.setattr(switched, "_slope", torch.zeros_like(switched._slope))

    plain = owen_values(comparison.game, switched, rng=np.random.default_rng(1), tolerance=0.0, max_rounds=50)

    assert (np.abs(controlled.phi - plain.phi) < 4 * (controlled.se + plain.se)).all()


def test_segments_of_a_linear_head_without_lstm_are_exact_from_the_first_round(small_study: Schema) -> None:
    model = scramble(build_model(small_study, parse_settings({"head": "", "series-embedding": 3})))
    start = sum(model.widths[name] for name in model.modalities[: model.modalities.index(NAME)])
    with torch.no_grad():
        model.state_dict()["head.linear.weight"][0, start : start + 3] = 0.0
    comparison = _comparison_of(model, n=4)
    switched = SwitchedCells(
        comparison.game, comparison.encoder, start=comparison.references, end=comparison.own, n_segments=2
    )

    found = owen_values(comparison.game, switched, rng=np.random.default_rng(0), max_rounds=2)

    assert found.se.max() < 1e-12
    assert found.phi.sum() == pytest.approx(float(comparison.game.values().mean()), abs=1e-12)


@pytest.mark.parametrize(("n_steps", "n_segments", "sizes"), [(4, 2, [2, 2]), (5, 2, [3, 2]), (3, 6, [1, 1, 1])])
def test_segments_are_as_equal_as_the_grid_allows(n_steps: int, n_segments: int, sizes: list[int]) -> None:
    assert torch.bincount(segment_of_step(n_steps=n_steps, n_segments=n_segments)).tolist() == sizes


def test_reference_in_the_patients_pattern_keeps_its_values_where_both_were_measured(comparison: Comparison) -> None:
    patterned = with_pattern_of(comparison.references, comparison.own)

    both = comparison.references.measured & comparison.own.measured
    assert torch.equal(patterned.measured, comparison.own.measured)
    assert torch.equal(patterned.values[both], comparison.references.values[both])
    assert not bool(patterned.values[~both].any())


def test_cells_and_pattern_together_are_the_value_of_the_modality(comparison: Comparison) -> None:
    patterned = with_pattern_of(comparison.references, comparison.own)
    with torch.no_grad():
        halfway = comparison.game.game.contribution(NAME, comparison.encoder(patterned.inputs()))
    pattern_game = replace(comparison.game, own=halfway)
    channels = SwitchedCells(
        pattern_game,
        comparison.encoder,
        start=comparison.references,
        end=patterned,
        n_segments=1,
    )

    pattern = owen_values(pattern_game, channels, rng=np.random.default_rng(0), max_rounds=2)
    path = integrated_gradients(comparison.game, comparison.encoder, start=patterned, end=comparison.own)

    total = pattern.phi.sum() + float(path.cells.sum())
    exact = comparison.game.values()
    assert total == pytest.approx(float(exact.mean()), abs=2 * RESIDUAL_TOLERANCE * float(exact.abs().mean()))
    assert path.residual <= RESIDUAL_TOLERANCE


def test_cells_that_were_not_measured_have_no_attribution(comparison: Comparison) -> None:
    patterned = with_pattern_of(comparison.references, comparison.own)

    path = integrated_gradients(comparison.game, comparison.encoder, start=patterned, end=comparison.own)

    assert not bool(path.cells[~comparison.own.measured[0]].any())


def test_path_of_a_linear_function_is_exact_with_the_first_points(small_study: Schema) -> None:
    """With weight on the channels' means only and a linear head, a cell's value is its change times a constant."""
    model = scramble(build_model(small_study, parse_settings({"head": "", "series-embedding": 3})))
    means = slice(3, 3 + CHANNELS)
    start = sum(model.widths[name] for name in model.modalities[: model.modalities.index(NAME)])
    with torch.no_grad():
        weights = model.head.linear.weight[0, start : start + model.widths[NAME]]  # type: ignore[union-attr,index]
        kept = weights[means].clone()
        weights.zero_()
        weights[means] = kept
    comparison = _comparison_of(model, n=4)
    patterned = with_pattern_of(comparison.references, comparison.own)

    path = integrated_gradients(comparison.game, comparison.encoder, start=patterned, end=comparison.own)

    counts = comparison.own.measured[0].sum(dim=0).clamp(min=1)
    change = (comparison.own.values - patterned.values).mean(dim=0)
    torch.testing.assert_close(path.cells, change * kept.double() / counts)
    assert path.points == FIRST_POINTS
    assert path.residual < 1e-12


def _comparison_of(model: MultimodalModel, *, n: int) -> Comparison:
    encoder = model.encoders[NAME]
    assert isinstance(encoder, SeriesEncoder)
    encoder = encoder.double()
    references, own = _recordings(n, seed=1), _recordings(1, seed=2)
    patient = _with_embedding(make_rows(model, 1, seed=1, absent=0.0), encoder, own)
    background = _with_embedding(make_rows(model, n, seed=2, absent=0.0), encoder, references)
    modality = game_between(model, NAME, patient=patient, background=background)
    return Comparison(modality, encoder, references, own.expand(n))


@given(seed=st.integers(0, 10_000), measured=st.sampled_from([0.0, 0.3, 1.0]))
def test_a_recording_survives_the_way_through_the_encoders_inputs(seed: int, measured: float) -> None:
    recordings = _recordings(2, seed=seed, measured=measured)

    back = Recordings.from_inputs(recordings.inputs())

    assert torch.equal(back.values, recordings.values)
    assert torch.equal(back.measured, recordings.measured)
