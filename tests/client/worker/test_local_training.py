from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import client.worker.run_state
from client.site import Site
from client.worker.local_training import answer_train
from client.worker.run_state import NeedsWeightsError
from shared_model.config import Phase, Settings
from shared_model.errors import ProtocolError, SuppressedError
from shared_model.evaluation.score_quantities import unpack_scores
from shared_model.model.encoders import ImageEncoder
from shared_model.model.fusion import build_model
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.messages import TrainRequest
from tests.server.small_cohort import fit_site, open_gate, small_settings, train_request, write_small_cohort


def _train(site: Site, settings: Settings, request: TrainRequest, *, min_patients: int = 10) -> dict[str, np.ndarray]:
    rule = SmallCellRule(min_patients, 5, 5, 3)
    gate = open_gate(site, settings, request, rule)
    return answer_train(site, settings, request, gate).arrays


@pytest.fixture
def image_site(tmp_path: Path) -> Site:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1, patients=20, images=True)
    return Site("east", cohort / "east", tmp_path / "cache")


def test_training_that_diverges_sends_nothing(small_site: Site) -> None:
    settings = small_settings(learning_rate=1e30, max_gradient_norm=1e30, batch_size=2)

    with pytest.raises(ProtocolError):
        _train(small_site, settings, train_request(small_site, settings))

    assert not (small_site.state_dir / "audit.jsonl").exists()


def test_head_that_diverged_is_not_what_the_next_round_starts_from(small_site: Site) -> None:
    """With a head of its own nothing of it travels, but its loss does."""
    settings = small_settings(local_head=True, learning_rate=1e30, max_gradient_norm=1e30, batch_size=2)

    with pytest.raises(ProtocolError):
        _train(small_site, settings, train_request(small_site, settings))

    assert not list(small_site.state_dir.glob("runs/*/head"))


def test_hospital_with_too_few_training_patients_sends_nothing(small_site: Site) -> None:
    settings = small_settings()  # 36 patients train

    with pytest.raises(SuppressedError, match="expected at least 37 patients, got fewer"):
        _train(small_site, settings, train_request(small_site, settings), min_patients=37)


def test_frozen_weights_with_another_hash_are_refused(small_site: Site) -> None:
    settings = small_settings()
    request = train_request(small_site, settings)
    request.frozen["encoders.static.tables.0.weight"][0] += 1

    with pytest.raises(ProtocolError, match="expected the hash that the question names"):
        _train(small_site, settings, request)


def test_frozen_weights_are_asked_for_once_a_run(small_site: Site) -> None:
    settings = small_settings()
    with pytest.raises(NeedsWeightsError):
        _train(small_site, settings, train_request(small_site, settings, with_frozen=False))

    first = _train(small_site, settings, train_request(small_site, settings))
    second = _train(small_site, settings, train_request(small_site, settings, with_frozen=False))

    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)


def test_reply_is_the_change_times_patients_of_a_full_batch_step(small_site: Site) -> None:
    settings = small_settings(batch_size=1000, learning_rate=0.3, head_penalty=0.0, max_gradient_norm=1e6)
    request = train_request(small_site, settings)

    arrays = _train(small_site, settings, request)

    model = build_model(small_site.schema, settings)
    rows = small_site.split(settings).train
    batch = fit_site(small_site, settings).batch(
        small_site.patients, rows, schema=small_site.schema, device=torch.device("cpu")
    )
    loss = nn.functional.binary_cross_entropy_with_logits(model(batch), batch.outcome)
    loss.backward()  # type: ignore[no-untyped-call]
    assert arrays["n-train"] == len(rows) == 36
    assert arrays["train-loss-sum"] == pytest.approx(36 * np.log(2), rel=1e-5)  # an untrained head says 0.5
    for name, parameter in model.named_parameters():
        if name.startswith("head."):
            expected = -0.3 * 36 * parameter.grad.numpy()  # type: ignore[union-attr]
            np.testing.assert_allclose(arrays[f"update/{name}"], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(arrays["update/head.linear.weight"]).max() > 0.1


def test_gradient_is_clipped_to_its_largest_norm(small_site: Site) -> None:
    settings = small_settings(batch_size=1000, learning_rate=1.0, head_penalty=0.0, max_gradient_norm=0.01)

    arrays = _train(small_site, settings, train_request(small_site, settings))

    changes = [arrays[name] / 36 for name in arrays if name.startswith("update/")]
    assert np.sqrt(sum(float(np.square(change).sum()) for change in changes)) == pytest.approx(0.01, rel=1e-3)


def test_validation_is_of_the_model_that_came_in(small_site: Site) -> None:
    settings = small_settings(learning_rate=1.0, local_epochs=5)

    scores = unpack_scores(_train(small_site, settings, train_request(small_site, settings)))

    assert scores.n == 12  # a fifth of 60
    assert scores.log_loss_sum == pytest.approx(12 * np.log(2), rel=1e-6)  # before training the head says 0.5


def test_fedprox_holds_the_model_closer_to_the_global_one(small_site: Site) -> None:
    def moved(**changes: float | str) -> float:
        settings = small_settings(learning_rate=0.1, local_epochs=20, **changes)
        arrays = _train(small_site, settings, train_request(small_site, settings))
        return float(np.linalg.norm(arrays["update/head.linear.weight"]))

    free, held = moved(strategy="fedavg"), moved(strategy="fedprox", proximal_mu=5.0)

    assert held < 0.7 * free
    assert moved(strategy="fedprox", proximal_mu=0.0) == free


def test_training_depends_on_the_round_and_not_on_what_was_drawn_before(small_site: Site) -> None:
    settings = small_settings(batch_size=4, dropout=0.5)

    def update(round_number: int) -> bytes:
        request = train_request(small_site, settings, round_number=round_number)
        return _train(small_site, settings, request)["update/head.linear.weight"].tobytes()

    first = update(0)
    torch.manual_seed(12345)

    assert update(0) == first
    assert update(1) != first


def test_fusion_decodes_no_image_after_its_first_round(image_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = ImageEncoder.forward

    def counted(self: ImageEncoder, image: torch.Tensor) -> torch.Tensor:
        seen.append(len(image))
        return forward(self, image)

    monkeypatch.setattr(ImageEncoder, "forward", counted)
    settings = small_settings(image_training="trained")

    _train(image_site, settings, train_request(image_site, settings))
    assert sum(seen) == 12 + 4  # training and validation part of 20 patients, each once
    _train(image_site, settings, train_request(image_site, settings, round_number=1, with_frozen=False))

    assert sum(seen) == 12 + 4


def test_fusion_leaves_the_encoders_as_they_are(image_site: Site) -> None:
    settings = small_settings()

    arrays = _train(image_site, settings, train_request(image_site, settings))

    assert {name.split("/")[1].split(".")[0] for name in arrays if name.startswith("update/")} == {"absent", "head"}


def test_fedbn_goes_on_from_the_norms_of_the_best_round_and_not_of_a_discarded_one(
    image_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_settings(local_norm=True, image_training="trained")
    loaded: list[str] = []
    load_file: Callable[..., dict[str, torch.Tensor]] = vars(client.worker.run_state)["load_file"]

    def noted(path: Path, device: str = "cpu") -> dict[str, torch.Tensor]:
        if path.parent.name == "norms":
            loaded.append(path.name)
        return load_file(path, device=device)

    monkeypatch.setattr(client.worker.run_state, "load_file", noted)
    second_dropped = ((1, 2),)  # the second unimodal round made the model worse: back to the first
    rounds: list[tuple[Phase, int, int, tuple[tuple[int, int], ...]]] = [
        ("unimodal", 0, 0, ()),
        ("unimodal", 1, 1, ()),
        # the hospital misses the question of round 2, the first of the next phase
        ("fusion", 3, 3, second_dropped),
        ("joint", 4, 4, second_dropped),
    ]
    for phase, round_number, weights_round, discarded in rounds:
        request = train_request(image_site, settings, phase=phase, round_number=round_number)
        _train(
            image_site,
            settings,
            request.model_copy(update={"weights_round": weights_round, "discarded": discarded}),
        )

    assert loaded == ["000001.safetensors"] * 3


def test_batch_norm_moments_travel_as_sums_over_patients(image_site: Site) -> None:
    """Pooled variance needs n (variance + mean^2): at one hospital alone the totals give back its own moments."""
    settings = small_settings(learning_rate=1e-9, image_training="trained")
    request = train_request(image_site, settings, phase="joint")
    layer = "encoders.hip.network.bn1."
    request.weights[f"{layer}running_mean"][:] = 5.0

    arrays = _train(image_site, settings, request)

    n = arrays["n-train"]
    mean = arrays[f"update/{layer}running_mean"] / n
    variance = arrays[f"update/{layer}running_var"] / n - np.square(mean)
    # one batch with momentum 0.1: nine tenths of the old moments, mean 5 and variance 1, and a tenth of the batch's
    model = build_model(image_site.schema, settings).train()
    batch = fit_site(image_site, settings).batch(
        image_site.patients,
        image_site.split(settings).train,
        schema=image_site.schema,
        device=torch.device("cpu"),
    )
    first = model.encoders["hip"].network.conv1(batch.inputs["hip"])  # type: ignore[union-attr,operator]
    np.testing.assert_allclose(mean, 4.5 + 0.1 * first.mean(dim=(0, 2, 3)).detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * first.var(dim=(0, 2, 3)).detach().numpy(), rtol=1e-4)
