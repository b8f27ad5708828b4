from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import client.worker.image_features
from client.site import Site
from client.worker.encoding import encode_patients
from client.worker.image_features import image_features
from shared_model.model.encoders import ImageEncoder
from shared_model.model.fusion import MultimodalModel, build_model
from shared_model.preprocessing.standardisation import Preprocessing, pooled_preprocessing
from shared_model.training.epochs import encode_all
from simulation.in_process import InProcessLink
from tests.server.small_cohort import open_workers, run_small_study, small_settings, write_small_cohort

CPU = torch.device("cpu")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1, patients=20, images=True)
    return Site("east", cohort / "east", tmp_path / "cache")


@pytest.fixture
def preprocessing(site: Site) -> Preprocessing:
    rows = np.arange(len(site.patients))
    return pooled_preprocessing(site.patients, rows, site.schema)


@pytest.fixture
def model(site: Site) -> MultimodalModel:
    return build_model(site.schema, small_settings())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through a residual network, call by call."""
    counts: list[int] = []
    features = ImageEncoder.features

    def counted(self: ImageEncoder, image: torch.Tensor) -> torch.Tensor:
        counts.append(len(image))
        return features(self, image)

    monkeypatch.setattr(ImageEncoder, "features", counted)
    return counts


def test_embeddings_from_kept_features_are_those_of_the_encoder(
    site: Site, preprocessing: Preprocessing, model: MultimodalModel
) -> None:
    rows = np.array([7, 2, 11, 0, 19])
    expected = encode_all(
        model,
        lambda chosen: preprocessing.batch(site.patients, chosen, schema=site.schema, device=CPU),
        rows,
        device=CPU,
    )

    for _ in ("computed", "kept"):
        encoded = encode_patients(site, model, preprocessing, rows, networks_sha256="a")

        assert set(encoded.embeddings) == set(expected.embeddings)
        for name, value in expected.embeddings.items():
            torch.testing.assert_close(encoded.embeddings[name], value, rtol=1e-5, atol=1e-5)


def test_patient_without_the_image_has_no_embedding(
    site: Site, preprocessing: Preprocessing, model: MultimodalModel
) -> None:
    site.patients.present["hip"][3] = False

    encoded = encode_patients(site, model, preprocessing, np.array([3, 4]), networks_sha256="a")

    assert not encoded.embeddings["hip"][0].any()
    assert encoded.embeddings["hip"][1].any()


def test_network_sees_each_image_once_in_all_phases_of_all_runs(tmp_path: Path, seen: list[int]) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", images=True)
    settings = small_settings(rounds_unimodal=2, rounds_fusion=2, rounds_joint=1)

    for name in ("first", "second"):
        link = InProcessLink(open_workers(cohort, tmp_path / "cache"))
        folder = run_small_study(cohort, tmp_path / name, settings=settings, link=link)
        assert folder.read_json("metrics.json")

    assert seen == [60, 60, 60]  # patients of each of the three hospitals


def test_features_are_computed_again_when_something_they_depend_on_changes(
    site: Site, preprocessing: Preprocessing, model: MultimodalModel, seen: list[int]
) -> None:
    image_features(site, model, preprocessing, "hip", networks_sha256="a")
    image_features(site, model, preprocessing, "hip", networks_sha256="a")
    assert sum(seen) == 20

    moved = replace(preprocessing, image_mean={"hip": preprocessing.image_mean["hip"] + 0.01})
    image_features(site, model, moved, "hip", networks_sha256="a")
    assert sum(seen) == 40

    image_features(site, model, preprocessing, "hip", networks_sha256="b")
    assert sum(seen) == 60

    film = next(iter(site.folder.rglob("*.png")))
    Image.fromarray(255 - np.asarray(Image.open(film))).save(film)
    again = Site(site.name, site.folder, site.cache_dir)
    image_features(again, model, preprocessing, "hip", networks_sha256="a")
    assert sum(seen) == 80


def test_damaged_file_counts_as_none(
    site: Site, preprocessing: Preprocessing, model: MultimodalModel, seen: list[int]
) -> None:
    expected = image_features(site, model, preprocessing, "hip", networks_sha256="a")
    (path,) = site.state_dir.glob("features/*.safetensors")
    path.write_bytes(path.read_bytes()[:100])

    torch.testing.assert_close(
        image_features(site, model, preprocessing, "hip", networks_sha256="a"), expected, rtol=0, atol=0
    )
    assert sum(seen) == 40


def test_oldest_features_are_forgotten(
    site: Site, preprocessing: Preprocessing, model: MultimodalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.worker.image_features, "KEPT_FILES", 2)

    for shift in range(4):
        moved = replace(preprocessing, image_mean={"hip": float(shift)})
        image_features(site, model, moved, "hip", networks_sha256="a")

    assert len(list(site.state_dir.glob("features/*"))) == 2


def test_network_whose_code_changed_sees_the_images_again(
    site: Site, preprocessing: Preprocessing, model: MultimodalModel, seen: list[int]
) -> None:
    """The same weights, of another step between pixels."""
    first = image_features(site, model, preprocessing, "hip", networks_sha256="0" * 64)
    image_features(site, model, preprocessing, "hip", networks_sha256="0" * 64)
    assert len(seen) == 1
    next(part for part in model.modules() if isinstance(part, torch.nn.Conv2d)).stride = (4, 4)
    again = image_features(site, model, preprocessing, "hip", networks_sha256="0" * 64)

    assert len(seen) == 2
    assert not torch.equal(first, again)
