"""A study in which one hospital has no vital signs: whose patients count in the average of that encoder."""

from pathlib import Path

import numpy as np
import pytest

from shared_model.model.fusion import build_model
from shared_model.protocol.messages import EVALUATE, EvaluateRequest
from shared_model.schema import load_schema
from simulation.in_process import InProcessLink
from tests.server.faulty_links import RecordingLink
from tests.server.small_cohort import open_workers, run_small_study, small_settings, write_small_cohort


@pytest.fixture(scope="module")
def without_vitals_in_south(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cohort = write_small_cohort(tmp_path_factory.mktemp("modalities") / "cohort", series=True)
    (cohort / "south" / "vitals.csv").unlink()
    return cohort


def _unimodal_steps(cohort: Path, folder: Path, *names: str, **changes: str | float) -> dict[str, np.ndarray]:
    """How far one unimodal round of these hospitals, with one full-batch step each, moves the weights."""
    settings = small_settings(
        rounds_unimodal=1,
        rounds_fusion=1,
        batch_size=1000,
        head_penalty=0.0,
        max_gradient_norm=1e6,
        min_sites=2,
        explain="none",
        folds=3,  # 18 deaths of 60: every hospital trains with the same odds, so all studies start alike
        **changes,
    )
    link = RecordingLink(InProcessLink(open_workers(cohort, folder / "cache", names=names)))
    run_small_study(cohort, folder / "run", settings=settings, link=link)
    after = next(EvaluateRequest.from_record(record) for kind, _, record in link.questions if kind == EVALUATE).weights
    start = build_model(load_schema(cohort / "schema.toml"), settings).state_dict()
    return {name: after[name] - start[name].numpy() for name in after if name.startswith("encoders.")}


def test_encoder_moves_as_in_a_study_of_the_hospitals_that_have_its_modality(
    without_vitals_in_south: Path, tmp_path: Path
) -> None:
    cohort, everyone = without_vitals_in_south, ("east", "north", "south")
    aware = _unimodal_steps(cohort, tmp_path / "aware", *everyone, aggregation="modalities")
    alone = _unimodal_steps(cohort, tmp_path / "alone", *everyone[:2], aggregation="patients")
    diluted = _unimodal_steps(cohort, tmp_path / "diluted", *everyone, aggregation="patients")

    vitals = [name for name in aware if name.startswith("encoders.vitals.")]
    assert vitals
    for name in vitals:
        np.testing.assert_allclose(aware[name], alone[name], rtol=1e-3, atol=1e-7)
        # the decay of 1e-4 is all that south does to an encoder that it cannot train
        np.testing.assert_allclose(diluted[name], 2 / 3 * alone[name], rtol=2e-2, atol=2e-6)
    assert max(np.abs(aware[name]).max() for name in vitals) > 1e-4


def test_aggregation_makes_no_difference_where_everyone_has_everything(cohort: Path, tmp_path: Path) -> None:
    steps = [
        _unimodal_steps(cohort, tmp_path / how, "east", "north", "south", aggregation=how)
        for how in ("patients", "modalities")
    ]

    assert max(np.abs(value).max() for value in steps[0].values()) > 1e-4
    for name, value in steps[0].items():
        np.testing.assert_array_equal(steps[1][name], value)
