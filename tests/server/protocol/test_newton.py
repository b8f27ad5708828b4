"""Newton's steps over hospitals end where pooled logistic regression does."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from client.worker.answering import Worker
from client.worker.local_training import without_rare
from server.protocol.newton import evidence_penalty, newton_direction
from server.run_folder.folder import RunFolder
from server.settings_check import check_settings
from shared_model.config import Scalar, Settings
from shared_model.errors import SettingsError
from shared_model.protocol.messages import TRAIN, TrainRequest
from shared_model.schema import load_schema
from shared_model.training.epochs import Encoded
from shared_model.training.newton import HEAD_WEIGHT
from shared_model.training.newton_rules import uses_newton
from simulation.in_process import InProcessLink
from simulation.pooled import PooledSite
from tests.server.faulty_links import FAULTS, FaultyLink, InterruptedLink, RecordingLink
from tests.server.pooled_inputs import fused_training_inputs, last_head, pooled_optimum
from tests.server.small_cohort import (
    open_workers,
    read_rounds,
    read_weights,
    run_small_study,
    small_settings,
    write_small_cohort,
)

NAMES = ("east", "north", "south")
PENALTY = 5.0


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60, 45 and 30 patients; the south has no vital signs."""
    cohort = write_small_cohort(tmp_path_factory.mktemp("uneven") / "cohort", series=True)
    for index, name in enumerate(NAMES):
        table = cohort / name / "patients.csv"
        table.write_text("".join(table.read_text().splitlines(keepends=True)[: 61 - 15 * index]))
        kept = {line.split(",")[0] for line in table.read_text().splitlines()}
        for other in ("vitals.csv", "drugs.csv"):
            lines = (cohort / name / other).read_text().splitlines(keepends=True)
            (cohort / name / other).write_text("".join(line for line in lines if line.split(",")[0] in kept))
    (cohort / "south" / "vitals.csv").unlink()
    return cohort


def _settings(**changes: Scalar) -> Settings:
    values: dict[str, Scalar] = {
        "strategy": "newton",
        "head": "",
        "head_penalty": PENALTY,
        "rounds_unimodal": 1,
        "rounds_fusion": 8,
        "patience": 100,
        "explain": "none",
    }
    return small_settings(**{**values, **changes})


def _run(cohort: Path, folder: Path, **changes: Scalar) -> tuple[RunFolder, RecordingLink]:
    link = RecordingLink(InProcessLink(open_workers(cohort, folder / "cache")))
    return run_small_study(cohort, folder / "run", settings=_settings(**changes), link=link), link


def _last_head(link: RecordingLink) -> np.ndarray:
    """After the last round of phase `fusion`: the first whole model asked about is that of phase `unimodal`."""
    questions = [RecordingLink(link.inner, link.questions[start:]) for start in range(len(link.questions))]
    after = [index for index, (kind, _, _) in enumerate(link.questions) if kind == TRAIN][-1]
    return last_head(questions[after])


@pytest.mark.parametrize("penalty", [0.5, PENALTY, 70.0])
def test_federated_newton_ends_at_the_pooled_optimum_within_eight_rounds(
    uneven: Path, tmp_path: Path, penalty: float
) -> None:
    folder, link = _run(uneven, tmp_path, head_penalty=penalty)

    inputs, outcome = fused_training_inputs(uneven, folder, _settings(), names=NAMES, cache_dir=tmp_path / "cache")
    optimum = pooled_optimum(inputs, outcome, penalty=penalty)
    assert np.abs(optimum).max() > 0.1
    assert np.abs(_last_head(link) - optimum).max() < 1e-6


def test_federated_newton_is_that_of_pooled_patients(uneven: Path, tmp_path: Path) -> None:
    """Step by step, and not only at the end, from the same encoders: of two studies without unimodal rounds."""
    federated, _ = _run(uneven, tmp_path, rounds_unimodal=0, rounds_fusion=3)
    workers = open_workers(uneven, tmp_path / "pooled-cache")
    everyone = PooledSite(
        "pooled", uneven / "east", tmp_path / "pooled-cache", hospitals=tuple(worker.site for worker in workers)
    )
    pooled = run_small_study(
        uneven,
        tmp_path / "pooled",
        settings=_settings(rounds_unimodal=0, rounds_fusion=3, min_sites=1),
        link=InProcessLink([Worker(everyone)]),
    )

    for name, value in load_file(federated.path / "model.safetensors").items():
        np.testing.assert_allclose(value, load_file(pooled.path / "model.safetensors")[name], atol=1e-6)
    losses = [[line["val_loss"] for line in read_rounds(folder)] for folder in (federated, pooled)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[0][-1] < losses[0][0] - 0.02


def test_class_weights_count_in_the_newton_step(uneven: Path, tmp_path: Path) -> None:
    folder, link = _run(uneven, tmp_path, class_weight="balanced")

    inputs, outcome = fused_training_inputs(uneven, folder, _settings(), names=NAMES, cache_dir=tmp_path / "cache")
    weight = (len(outcome) - outcome.sum()) / outcome.sum()
    logit = inputs @ _last_head(link)[:-1] + _last_head(link)[-1]
    residual = np.where(outcome == 1, weight, 1.0) * (1 / (1 + np.exp(-logit)) - outcome)
    # at the optimum the gradient is the penalty's
    np.testing.assert_allclose(residual @ inputs, -PENALTY * _last_head(link)[:-1], atol=1e-4)
    assert residual.sum() == pytest.approx(0, abs=1e-4)


def test_other_phases_are_those_of_fedavg(uneven: Path, tmp_path: Path) -> None:
    first = [
        TrainRequest.from_record(record).frozen
        for strategy in ("newton", "fedavg")
        for kind, node, record in _run(uneven, tmp_path / strategy, strategy=strategy, rounds_fusion=1)[1].questions
        if kind == TRAIN and node == 0 and TrainRequest.from_record(record).phase == "fusion"
    ]

    assert len(first) == 2
    for name, value in first[0].items():
        np.testing.assert_array_equal(first[1][name], value)


def test_hospital_that_fails_a_round_does_not_count_as_a_loss_that_fell_or_rose(uneven: Path, tmp_path: Path) -> None:
    calls: list[int] = []

    def second(kind: str, answer: object) -> object:
        calls.append(1)
        return FAULTS["deadline"](kind, answer) if len(calls) == 3 else answer  # type: ignore[arg-type]

    link = RecordingLink(InProcessLink(open_workers(uneven, tmp_path / "cache")))
    folder = run_small_study(
        uneven,
        tmp_path / "run",
        settings=_settings(min_sites=2),
        link=FaultyLink(link, 0, second, (TRAIN,)),  # type: ignore[arg-type]
    )

    assert [list(line["failed"]) for line in read_rounds(folder)][1:5] == [[], [], ["east"], []]
    inputs, outcome = fused_training_inputs(uneven, folder, _settings(), names=NAMES, cache_dir=tmp_path / "cache")
    assert np.abs(_last_head(link) - pooled_optimum(inputs, outcome, penalty=PENALTY)).max() < 1e-6


def test_newton_resumes_to_the_same_bytes(uneven: Path, tmp_path: Path) -> None:
    whole, _ = _run(uneven, tmp_path / "whole", patience=3)
    workers = open_workers(uneven, tmp_path / "cache")
    settings = _settings(patience=3)

    with pytest.raises(KeyboardInterrupt):
        run_small_study(uneven, tmp_path / "run", settings=settings, link=InterruptedLink(InProcessLink(workers), 6))
    resumed = run_small_study(uneven, tmp_path / "run", settings=settings, link=InProcessLink(workers), resume=True)

    assert read_rounds(resumed) == read_rounds(whole)
    assert read_weights(resumed) == read_weights(whole)


def test_head_that_is_too_wide_is_refused_before_the_run(uneven: Path) -> None:
    with pytest.raises(SettingsError, match="at most 1024 columns"):
        check_settings(
            load_schema(uneven / "schema.toml"),
            _settings(series_embedding=512, seed=1).model_copy(update={"series_embedding": 1100}),
        )


@pytest.mark.parametrize("adapt_penalty", [False, True])
def test_phase_ends_once_it_has_converged_where_all_its_rounds_would_have_ended(
    uneven: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    adapt_penalty: bool,  # noqa: FBT001
) -> None:
    changes: dict[str, Scalar] = {"rounds_unimodal": 0, "rounds_fusion": 20, "adapt_penalty": adapt_penalty}
    stopped, _ = _run(uneven, tmp_path / "stopped", **changes)
    monkeypatch.setattr("server.protocol.training.is_converged", lambda state: False)  # noqa: ARG005
    whole, _ = _run(uneven, tmp_path / "whole", **changes)

    few, all_of_them = read_rounds(stopped), read_rounds(whole)

    assert len(few) <= 10
    assert len(all_of_them) == 21
    assert few[:-1] == all_of_them[: len(few) - 1]
    assert few[-1]["train_loss"] is None  # the last line only validates
    assert few[-1]["val_loss"] == pytest.approx(all_of_them[-1]["val_loss"], abs=1e-8)
    best, best_of_all = (min(line["val_loss"] for line in lines) for lines in (few, all_of_them))
    assert best == pytest.approx(best_of_all, abs=1e-8)


def test_run_interrupted_around_its_convergence_resumes_to_the_same_bytes(uneven: Path, tmp_path: Path) -> None:
    settings = _settings(rounds_unimodal=0, rounds_fusion=20)
    counting = InterruptedLink(InProcessLink(open_workers(uneven, tmp_path / "cache")), at=1000)
    whole = run_small_study(uneven, tmp_path / "whole", settings=settings, link=counting)
    assert len(read_rounds(whole)) < 20

    for before_the_end in (4, 3, 2, 1):  # the last step but one, the last one, its validation, the evaluation
        out = tmp_path / f"run-{before_the_end}"
        cut = InterruptedLink(InProcessLink(open_workers(uneven, tmp_path / "cache")), counting.asked - before_the_end)
        with pytest.raises(KeyboardInterrupt):
            run_small_study(uneven, out, settings=settings, link=cut)
        again = InProcessLink(open_workers(uneven, tmp_path / "cache"))
        resumed = run_small_study(uneven, out, settings=settings, link=again, resume=True)

        assert read_rounds(resumed) == read_rounds(whole)
        assert read_weights(resumed) == read_weights(whole)


def test_run_whose_first_step_overshoots_halves_it_and_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    """Deaths are rare, and one sign all but tells them: from the base rate Newton's first step goes too far."""
    cohort = write_small_cohort(tmp_path / "cohort", patients=400)
    for name in NAMES:
        rng = np.random.default_rng(len(name))
        table = pd.read_csv(cohort / name / "patients.csv")
        sign = rng.random(400) < 0.05
        table["died"] = (rng.random(400) < np.where(sign, 0.7, 0.02)).astype(int)
        table["male"] = sign.astype(int)
        table.to_csv(cohort / name / "patients.csv", index=False)
    changes: dict[str, Scalar] = {"rounds_unimodal": 0, "rounds_fusion": 5, "head_penalty": 0.1}
    whole, _ = _run(cohort, tmp_path / "whole", **changes)
    losses = [line["train_loss"] for line in read_rounds(whole) if line["train_loss"] is not None]
    assert max(np.diff(losses)) > 0  # the step went too far ...
    assert losses[-1] < losses[0]  # ... and was taken back
    cut = InterruptedLink(InProcessLink(open_workers(cohort, tmp_path / "cut-cache")), at=7)
    with pytest.raises(KeyboardInterrupt):
        run_small_study(cohort, tmp_path / "cut", settings=_settings(**changes), link=cut)
    assert len(read_rounds(RunFolder(tmp_path / "cut"))) in {2, 3}  # between the step and what follows it
    again = InProcessLink(open_workers(cohort, tmp_path / "cut-cache"))
    resumed = run_small_study(cohort, tmp_path / "cut", settings=_settings(**changes), link=again, resume=True)
    assert read_weights(resumed) == read_weights(whole)


def test_penalties_stand_in_rounds_and_are_given_with_class_weights(uneven: Path, tmp_path: Path) -> None:
    adapted, _ = _run(uneven, tmp_path, rounds_unimodal=0, adapt_penalty=True)
    weighted, _ = _run(uneven, tmp_path / "weighted", rounds_unimodal=0, adapt_penalty=True, class_weight="balanced")
    lines = [line for line in read_rounds(adapted) if line["train_loss"] is not None]
    assert all(set(line["penalties"]) == {"static", "vitals", "drugs"} for line in lines)
    assert not any("penalties" in line for line in read_rounds(weighted))


def test_modality_of_a_few_patients_is_nobodys_in_the_sums() -> None:
    """Second moments of one patient are that patient: fewer than the rule's ten count as absent."""
    encoded = Encoded({"vitals": torch.ones(12, 2)}, {"vitals": torch.arange(12) < 9}, torch.zeros(12))
    assert not without_rare(encoded, least=10).present["vitals"].any()
    assert without_rare(encoded, least=9).present["vitals"].sum() == 9


def test_evidence_shrinks_a_group_of_noise_and_keeps_one_that_says_something() -> None:
    """Ten columns of noise beside two of signal: the penalties come apart by themselves, and predict better."""
    rng = np.random.default_rng(0)
    inputs = np.concatenate([rng.normal(size=(600, 12)), np.ones((600, 1))], axis=1)
    outcome = (rng.random(600) < 1 / (1 + np.exp(-inputs[:, :2].sum(axis=1) + 2))).astype(float)
    groups, head, penalty = [slice(0, 2), slice(2, 12)], np.zeros(13), np.append(np.full(12, 70.0), 0.0)
    for _ in range(30):
        risk = 1 / (1 + np.exp(-inputs @ head))
        curvature = (inputs * (risk * (1 - risk))[:, None]).T @ inputs
        penalty = evidence_penalty(head, curvature, penalty, groups=groups)
        head = head + newton_direction(inputs.T @ (risk - outcome) + penalty * head, curvature + np.diag(penalty))
    assert penalty[0] < 5
    assert penalty[5] > 100
    assert np.abs(head[:2] - 1).max() < 0.3


def test_run_with_penalties_by_evidence_is_that_of_pooled_patients_and_resumes(uneven: Path, tmp_path: Path) -> None:
    federated, _ = _run(uneven, tmp_path, rounds_unimodal=0, rounds_fusion=6, adapt_penalty=True)
    given, _ = _run(uneven, tmp_path / "given", rounds_unimodal=0, rounds_fusion=6)
    workers = open_workers(uneven, tmp_path / "pooled-cache")
    everyone = PooledSite(
        "pooled", uneven / "east", tmp_path / "pooled-cache", hospitals=tuple(worker.site for worker in workers)
    )
    pooled = run_small_study(
        uneven,
        tmp_path / "pooled",
        settings=_settings(rounds_unimodal=0, rounds_fusion=6, adapt_penalty=True, min_sites=1),
        link=InProcessLink([Worker(everyone)]),
    )
    found, other = (load_file(folder.path / "model.safetensors") for folder in (federated, pooled))
    # A penalty comes to rest within a thousandth: at another update where a last digit of a sum differs.
    np.testing.assert_allclose(found[HEAD_WEIGHT], other[HEAD_WEIGHT], atol=1e-4)
    assert not np.allclose(found[HEAD_WEIGHT], load_file(given.path / "model.safetensors")[HEAD_WEIGHT], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, True), ({"head": "32"}, True), ({"fusion": "late"}, False), ({"local_head": True}, False)],
)
def test_newton_steps_are_for_early_fusion_with_a_common_head(changes: dict[str, Scalar], expected: bool) -> None:  # noqa: FBT001
    settings = _settings(**changes)
    assert uses_newton(settings, "fusion") == expected
    assert not uses_newton(settings, "unimodal")
    assert not uses_newton(settings, "joint")


def test_perceptron_stays_at_zero_until_joint_training(uneven: Path, tmp_path: Path) -> None:
    linear, _ = _run(uneven, tmp_path, rounds_unimodal=0)
    _, link = _run(uneven, tmp_path / "trained", rounds_unimodal=0, rounds_joint=2, head="4", learning_rate=0.5)
    asked = [TrainRequest.from_record(record) for kind, _, record in link.questions if kind == TRAIN]
    joint = [request.weights for request in asked if request.phase == "joint"]
    fitted = load_file(linear.path / "model.safetensors")[HEAD_WEIGHT]
    np.testing.assert_allclose(joint[0][HEAD_WEIGHT], fitted, atol=1e-6)
    assert not joint[0]["head.perceptron.2.weight"].any()
    assert joint[-1]["head.perceptron.2.weight"].any()  # after a round of joint training
    with pytest.raises(SettingsError, match="expected rounds-joint of 1 or more with strategy=newton"):
        _run(uneven, tmp_path / "never", head="4")
