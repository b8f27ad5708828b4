"""The projections of fixed image encoders over the whole protocol, with hospitals in this process."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from safetensors.torch import load_file

from client.site import Site
from client.worker.answering import Worker
from server.protocol.link import Answer
from server.run_folder.folder import RunFolder
from shared_model.errors import StudyError
from shared_model.model.encoders import ImageEncoder
from shared_model.model.fusion import build_model
from shared_model.model.image_components import component_sums, principal_components
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.protocol.messages import COMPONENTS, TRAIN, Refusal, SumsReply
from shared_model.schema import load_schema
from simulation.in_process import InProcessLink
from tests.server.faulty_links import InterruptedLink, RecordingLink
from tests.server.small_cohort import (
    open_workers,
    read_rounds,
    read_weights,
    requests_of_every_kind,
    run_small_study,
    small_settings,
    write_small_cohort,
)

SETTINGS = small_settings(rounds_unimodal=1, rounds_fusion=1, rounds_joint=1, image_embedding=3)


@pytest.fixture(scope="module")
def image_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("components") / "cohort", images=True, series=True)


@pytest.fixture(scope="module")
def finished(image_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RecordingLink]:
    folder = tmp_path_factory.mktemp("finished")
    link = RecordingLink(InProcessLink(open_workers(image_cohort, folder / "cache")))
    return run_small_study(image_cohort, folder / "run", settings=SETTINGS, link=link), link


def test_encoder_ends_in_the_components_of_all_hospitals_training_patients(
    finished: tuple[RunFolder, RecordingLink], image_cohort: Path, tmp_path: Path
) -> None:
    folder, _ = finished
    preprocessing = Preprocessing.from_json(folder.read_json("model.json")["preprocessing"])
    schema = load_schema(image_cohort / "schema.toml")
    encoder = build_model(schema, SETTINGS).eval().encoders["hip"]
    assert isinstance(encoder, ImageEncoder)
    features = []
    for name in ("east", "north", "south"):
        site = Site(name, image_cohort / name, tmp_path / "cache")
        rows = site.split(SETTINGS).train
        images = preprocessing.batch(site.patients, rows, schema=schema, device=torch.device("cpu")).inputs["hip"]
        with torch.no_grad():
            features.append(encoder.features(images).numpy())
    weight, bias = principal_components(component_sums({"hip": np.concatenate(features)}), "hip", n_components=3)

    trained = load_file(folder.path / "model.safetensors")

    np.testing.assert_allclose(trained["encoders.hip.projection.weight"], weight, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(trained["encoders.hip.projection.bias"], bias, rtol=1e-3, atol=1e-3)


def test_fixed_encoder_never_changes_and_the_series_encoder_trains(
    finished: tuple[RunFolder, RecordingLink], image_cohort: Path
) -> None:
    folder, _ = finished
    start = build_model(load_schema(image_cohort / "schema.toml"), SETTINGS).state_dict()
    trained = load_file(folder.path / "model.safetensors")
    network = [name for name in trained if name.startswith("encoders.hip.network.")]
    assert len(network) > 50
    assert all(torch.equal(trained[name], start[name]) for name in network)
    assert not torch.equal(trained["encoders.vitals.lstm.weight_ih_l0"], start["encoders.vitals.lstm.weight_ih_l0"])


def test_fixed_network_travels_once_a_run(finished: tuple[RunFolder, RecordingLink]) -> None:
    _, link = finished
    assert sum(kind == COMPONENTS for kind, _, _ in link.questions) == 3  # one question to each of three hospitals
    assert [(kind, node) for kind, node in carried(link)] == [(COMPONENTS, 0), (COMPONENTS, 1), (COMPONENTS, 2)]
    for _, _, record in link.questions:
        others = [name for field in ("weights", "frozen") for name in record.array_records.get(field, ())]
        assert not any(".network." in name for name in others)


def carried(link: RecordingLink) -> list[tuple[str, int]]:
    """Kind and node of the questions that the fixed networks went along with."""
    return [(kind, node) for kind, node, record in link.questions if record.array_records.get("networks")]


def test_hospital_that_lost_the_fixed_network_gets_it_within_the_round(image_cohort: Path, tmp_path: Path) -> None:
    workers = open_workers(image_cohort, tmp_path / "cache")

    @dataclass
    class Losing(RecordingLink):
        """After the first round of training, a hospital has lost all that it kept."""

        trained: int = 0

        def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
            self.trained += kind == TRAIN
            if self.trained == 2:
                shutil.rmtree(workers[1].site.state_dir, ignore_errors=True)
            yield from super().ask(kind, questions, deadline_s=deadline_s)

    link = Losing(InProcessLink(workers))
    settings = small_settings(rounds_unimodal=0, rounds_fusion=4, image_embedding=3)
    folder = run_small_study(image_cohort, tmp_path / "run", settings=settings, link=link)

    assert [line["answered"] for line in read_rounds(folder)] == [["east", "north", "south"]] * 5
    assert [one for one in carried(link) if one[0] != COMPONENTS] == [(TRAIN, 1)]


@pytest.mark.parametrize("asked", [5, 6, 8])  # before the components, in training, before the test
def test_interrupted_run_with_a_fixed_network_resumes_to_the_same_bytes(
    asked: int, finished: tuple[RunFolder, RecordingLink], image_cohort: Path, tmp_path: Path
) -> None:
    whole, _ = finished
    link = InterruptedLink(InProcessLink(open_workers(image_cohort, tmp_path / "cache")), at=asked)
    with pytest.raises(KeyboardInterrupt):
        run_small_study(image_cohort, tmp_path / "run", settings=SETTINGS, link=link)

    resumed = run_small_study(
        image_cohort, tmp_path / "run", settings=SETTINGS, cache_dir=tmp_path / "other-cache", resume=True
    )

    assert read_weights(resumed) == read_weights(whole)
    assert (resumed.path / "metrics.json").read_bytes() == (whole.path / "metrics.json").read_bytes()


def test_checkpoint_of_a_round_does_not_repeat_the_fixed_network(finished: tuple[RunFolder, RecordingLink]) -> None:
    folder, _ = finished
    sizes = {path.name.partition("-")[0]: path.stat().st_size for path in folder.checkpoints.iterdir()}
    assert sizes["networks"] > 40e6
    assert sizes["progress.safetensors"] < 1e6


def test_checkpoint_without_its_networks_is_refused(
    finished: tuple[RunFolder, RecordingLink], image_cohort: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished[0].path, tmp_path / "run")
    (networks,) = RunFolder(tmp_path / "run").checkpoints.glob("networks-*")
    networks.unlink()
    with pytest.raises(StudyError, match="expected a finished round"):
        run_small_study(image_cohort, tmp_path / "run", settings=SETTINGS, resume=True)


def test_study_without_images_asks_for_no_components(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort")
    link = RecordingLink(InProcessLink(open_workers(cohort, tmp_path / "cache")))
    run_small_study(cohort, tmp_path / "run", settings=small_settings(), link=link)
    assert not any(kind == COMPONENTS for kind, _, _ in link.questions)


def test_features_of_few_patients_and_of_other_parts_do_not_leave(image_cohort: Path, tmp_path: Path) -> None:
    """Sums over fewer than ten patients with an image are those of nobody."""
    table = image_cohort / "east" / "images.csv"
    cohort = tmp_path / "cohort"
    shutil.copytree(image_cohort, cohort)
    site = Site("east", cohort / "east", tmp_path / "cache")
    request = requests_of_every_kind(site, SETTINGS)[COMPONENTS]
    whole = SumsReply.from_record(Worker(site).answer(COMPONENTS, request.to_record())).arrays
    assert whole["hip/n"] == 36

    lines = table.read_text().splitlines(keepends=True)
    (cohort / "east" / "images.csv").write_text("".join(lines[:10]))  # nine patients
    few = Site("east", cohort / "east", tmp_path / "other-cache")
    arrays = SumsReply.from_record(Worker(few).answer(COMPONENTS, request.to_record())).arrays
    assert not any(array.any() for array in arrays.values())

    other = request.model_copy(update={"part": "test"})
    refusal = Refusal.from_record(Worker(site).answer(COMPONENTS, other.to_record()))
    assert "expected a question about the train part" in refusal.reason
