"""`hipfed-sim bench explanations`: the values agree where they must, and what fails is written down."""

import json
import os
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from shared_model.model.encoders.resnet import ResNet
from simulation.bench import engine, peers
from simulation.bench.explainer_model import Phi, Subject, build_subject, choose_settings, select
from simulation.bench.explanations import TrueValues, compare_values
from simulation.bench.isolated import run_isolated
from simulation.cli import app
from tests.waiting import PATIENCE_S


def _build(**settings: str) -> Subject:
    return build_subject(image_size=33, patients=1, background=4, settings=choose_settings(settings))


@pytest.fixture(scope="module")
def subject() -> Subject:
    return _build(head="16,8")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command writes for shap's enumeration, of the same model and patients as `subject`."""
    out = tmp_path_factory.mktemp("bench") / "result.json"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes longer than the whole benchmark
        options = "--image-size 33 --background 4 --only shap-exact --set head=16,8"
        done = CliRunner().invoke(app, ["bench", "explanations", "--out", str(out), *options.split()])
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(out.read_text())
    return result


def _additivity_error(subject: Subject, phi: Phi) -> float:
    return float(abs(phi.sum() - (subject.logit[0] - subject.base_logit)))


def test_our_engine_equals_shap_exact_explainer_on_the_same_game(subject: Subject, written: dict[str, Any]) -> None:
    theirs = written["explainers"]["shap-exact"]["modality_values"]

    np.testing.assert_allclose(engine.modality_values(subject)(), theirs, rtol=2e-5, atol=1e-5)
    assert np.abs(theirs).min() > 1e-3  # so that agreement means something


def test_the_command_writes_what_was_run_and_no_more(written: dict[str, Any]) -> None:
    assert list(written["explainers"]) == ["shap-exact"]
    assert written["targets"] == {}
    assert written["modalities"] == ["static", "vitals", "medications", "hip", "chest"]
    found = written["explainers"]["shap-exact"]
    assert found["error"] is None
    assert found["seconds"] > 0
    assert found["peak_mb"] >= found["prepared_mb"] > 0
    assert found["modality_error"] < 1e-4
    assert found["additivity_error"] < 1e-4


def test_features_sum_to_the_enumerated_modalities(subject: Subject) -> None:
    np.testing.assert_allclose(engine.feature_values(subject)(), subject.phi, rtol=2e-5, atol=1e-5)


def test_a_rebuilt_subject_is_the_same(subject: Subject, tmp_path: Path) -> None:
    again = _build(head="16,8")
    again.save(tmp_path / "subject.pt")
    loaded = Subject.load(tmp_path / "subject.pt")

    np.testing.assert_array_equal(loaded.phi, subject.phi)
    torch.testing.assert_close(loaded.model.state_dict(), subject.model.state_dict(), rtol=0, atol=0)


def test_raw_inputs_give_the_prediction(subject: Subject) -> None:
    raw = peers.RawModel(subject.model)

    with torch.no_grad():
        logit = raw(*raw.inputs(subject.patients))

    np.testing.assert_allclose(logit.squeeze(1).numpy(), subject.logit, rtol=0, atol=1e-5)


def test_a_hybrid_takes_each_modality_from_where_it_is_told(subject: Subject) -> None:
    own = select(subject.patients, [0, 0, 0, 0])

    hybrid = peers.mix(own, subject.background, {"static", "hip"})

    assert hybrid.levels is own.levels
    assert hybrid.inputs["hip"] is own.inputs["hip"]
    assert hybrid.inputs["chest"] is subject.background.inputs["chest"]
    assert hybrid.inputs["vitals"] is subject.background.inputs["vitals"]


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_rewritten_blocks_compute_the_same(architecture: str) -> None:
    torch.manual_seed(0)
    network = ResNet(architecture).eval()
    images = torch.rand(2, 3, 33, 33)
    with torch.no_grad():
        before = network(images)
        peers.rewrite_blocks(network)
        after = network(images)

    assert not any(module.inplace for module in network.modules() if isinstance(module, nn.ReLU))
    assert any(isinstance(module, peers.PlainBlock) for module in network.modules())
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("library", ["shap", "captum"])
def test_deep_explainers_of_the_libraries_miss_the_sum_that_ours_keeps(library: str, tmp_path: Path) -> None:
    _build().save(tmp_path / "subject.pt")
    ours, theirs = Subject.load(tmp_path / "subject.pt"), Subject.load(tmp_path / "subject.pt")
    with warnings.catch_warnings():
        # Of matplotlib on importing shap, of shap about the LSTM and our modules, of captum about its hooks.
        warnings.filterwarnings("ignore", "The set_.* function will be deprecated", PendingDeprecationWarning)
        warnings.filterwarnings("ignore", "unrecognized nn.Module", UserWarning)
        warnings.filterwarnings("ignore", "Setting forward, backward hooks", UserWarning)
        if library == "shap":
            phi = peers.shap_deep(theirs, rewritten=True, check_additivity=False)()
        else:
            phi = peers.captum_deep(theirs, rewritten=True)()

    assert _additivity_error(theirs, phi) > 0.01
    assert _additivity_error(ours, engine.modality_values(ours)()) < 1e-5


def test_errors_are_those_of_hand_computed_values() -> None:
    truth = TrueValues(("a", "b"), logit=np.array([3.0]), base_logit=1.0, phi=np.array([[3.0, -1.0]]))

    found = compare_values(np.array([[3.0, 1.0]]), truth)
    worse = compare_values(np.array([[1.0, 1.0]]), truth)

    assert found["additivity_error"] == pytest.approx(2.0)  # 3 + 1 - (3 - 1)
    assert found["additivity_error_relative"] == pytest.approx(1.0)
    assert found["modality_error"] == pytest.approx(0.5)  # (0 + 2) / 2 over (3 + 1) / 2
    assert found["share_error_points"] == pytest.approx(0.0)  # shares are of absolute values
    assert worse["share_error_points"] == pytest.approx(25.0)  # 50 % instead of 75 %


def test_a_result_has_its_own_seconds_and_memory() -> None:
    big = run_isolated(eval, "lambda: len(b'x' * 300_000_000)", timeout_s=PATIENCE_S)
    begin = time.monotonic()
    small = run_isolated(partial, sum, (1, 2), timeout_s=PATIENCE_S)
    whole_s = time.monotonic() - begin

    assert (big.value, small.value) == (300_000_000, 3)
    assert big.error is None
    assert big.peak_mb > big.prepared_mb + 250
    assert small.peak_mb < 100  # this process, with torch loaded, has several times that
    assert 0 < small.seconds < whole_s / 2  # the start of the process does not count


def test_an_exception_is_recorded_with_its_text() -> None:
    outcome = run_isolated(json.loads, "no json", timeout_s=PATIENCE_S)

    assert outcome.value is None
    assert outcome.error is not None
    assert outcome.error.startswith("JSONDecodeError: Expecting value")


@pytest.mark.parametrize(
    ("crash", "arguments", "ending"), [(os.abort, (), "signal SIGABRT"), (os._exit, (3,), "exit status 3")]
)
def test_a_crash_is_recorded(crash: Any, arguments: tuple[int, ...], ending: str) -> None:
    outcome = run_isolated(crash, *arguments, timeout_s=PATIENCE_S)

    assert outcome.value is None
    assert outcome.error is not None
    assert outcome.error.startswith(f"crash: the process ended with {ending}")


def test_a_timeout_is_recorded_and_ends_the_process() -> None:
    outcome = run_isolated(time.sleep, 3600, timeout_s=1.0)

    assert outcome.error == "timeout: no result after 1 s"


def test_warnings_are_recorded_once() -> None:
    outcome = run_isolated(
        eval, "lambda: [__import__('warnings').warn('beware') for _ in range(2)]", timeout_s=PATIENCE_S
    )

    assert outcome.warnings == ("beware",)


def test_a_missing_captum_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)

    done = CliRunner().invoke(app, ["bench", "explanations", "--out", str(tmp_path / "out.json")])

    assert done.exit_code == 1
    assert "expected the package captum, got none" in done.stderr
    assert "pip install -e '.[bench]'" in done.stderr
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "lime"], "--only: expected some of hipfed-modalities"),
        (["--only", "shap-exact", "--set", "fusion=late"], "expected early fusion of all modalities"),
        (["--only", "shap-exact", "--set", "nonsense=1"], "nonsense: unknown setting"),
    ],
)
def test_a_wrong_option_is_said_plainly(options: list[str], message: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out.json")

    done = CliRunner().invoke(app, ["bench", "explanations", "--out", out, *options], env={"COLUMNS": "500"})

    assert done.exit_code == 1
    assert message in done.stderr.replace("\n", " ")


def test_pooled_needs_a_cohort(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "pooled", "--out", str(tmp_path / "out.json")])

    assert done.exit_code == 2
    assert "Missing option '--cohort'" in done.output
