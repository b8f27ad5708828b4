from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from shared_model.config import Scalar, parse_settings
from shared_model.errors import StudyError
from shared_model.model.encoders import ImageEncoder
from shared_model.model.fusion import MultimodalModel, build_model
from shared_model.schema import Schema
from shared_model.shapley.game import ModalityGame, Rows
from shared_model.shapley.pixels import pixel_values
from tests.shared_model.shapley.small_games import game_between, make_rows, scramble

NAME, SIZE, REFERENCES = "hip", 33, 4


@dataclass(frozen=True)
class Comparison:
    """One patient's image against those of some others, and the game of its modality."""

    model: MultimodalModel
    game: ModalityGame
    encoder: ImageEncoder
    image: Tensor
    references: Tensor

    def attribute(self) -> tuple[Tensor, float]:
        found = pixel_values(self.game, self.encoder, image=self.image, references=self.references)
        return found.pixels, found.residual


def _compare(study: Schema, **settings: Scalar) -> Comparison:
    values = {"image-embedding": 3, **{key.replace("_", "-"): value for key, value in settings.items()}}
    model = scramble(build_model(study, parse_settings(values)))
    encoder = model.encoders[NAME]
    assert isinstance(encoder, ImageEncoder)
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(1 + REFERENCES, 1, SIZE, SIZE, generator=generator)
    with torch.no_grad():
        embeddings = encoder(images)
    patient, background = make_rows(model, 1, seed=1, absent=0.0), make_rows(model, REFERENCES, seed=2, absent=0.0)
    patient = Rows({**patient.embeddings, NAME: embeddings[:1]}, patient.present)
    background = Rows({**background.embeddings, NAME: embeddings[1:]}, background.present)
    modality = game_between(model, NAME, patient=patient, background=background)
    return Comparison(model, modality, encoder, images[0], images[1:])


@pytest.mark.parametrize("head", ["", "8", "8,4"])
@pytest.mark.parametrize("fusion", ["early", "late"])
def test_pixels_sum_to_the_exact_value_of_the_modality(small_study: Schema, head: str, fusion: str) -> None:
    comparison = _compare(small_study, head=head, fusion=fusion)

    pixels, residual = comparison.attribute()

    exact = comparison.game.values()
    assert float(pixels.sum()) == pytest.approx(float(exact.mean()), abs=1e-4 * float(exact.abs().mean()))
    assert residual < 1e-4


def test_resnet_50_is_complete_too(small_study: Schema) -> None:
    comparison = _compare(small_study, image_encoder="resnet50")

    _, residual = comparison.attribute()

    assert residual < 1e-3  # float32 through 50 layers; float64 in test_rescale.py


def test_pixel_that_equals_all_references_has_no_attribution(small_study: Schema) -> None:
    comparison = _compare(small_study)
    comparison.references[:, :, 4:8, 4:8] = comparison.image[:, 4:8, 4:8]

    pixels, _ = comparison.attribute()

    assert not bool(pixels[4:8, 4:8].any())
    assert bool(pixels.any())


def test_image_equal_to_its_references_has_no_attribution_and_no_residual(small_study: Schema) -> None:
    comparison = _compare(small_study)
    comparison.references[:] = comparison.image

    pixels, residual = comparison.attribute()

    assert not bool(pixels.any())
    assert residual == 0.0


def test_model_is_left_as_it_was(small_study: Schema) -> None:
    comparison = _compare(small_study)
    before = {name: value.clone() for name, value in comparison.model.state_dict().items()}
    with torch.no_grad():
        embedding = comparison.encoder(comparison.references)

    comparison.attribute()

    assert all(torch.equal(value, before[name]) for name, value in comparison.model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(comparison.encoder(comparison.references), embedding)
    assert all(parameter.grad is None for parameter in comparison.model.parameters())


def test_head_that_the_rescale_rule_cannot_pass_is_refused(small_study: Schema) -> None:
    comparison = _compare(small_study, head="8", head_norm="layer")

    with pytest.raises(StudyError, match="LayerNorm"):
        comparison.attribute()


def test_brightening_a_region_changes_the_attribution_most_there(small_study: Schema) -> None:
    comparison = _compare(small_study)
    comparison.references[:] = comparison.image
    comparison.image[:, 10:20, 10:20] += 2.0  # the references share its storage only by value

    pixels, _ = comparison.attribute()

    outside = np.ones((SIZE, SIZE), dtype=bool)
    outside[10:20, 10:20] = False
    assert not bool(pixels[torch.from_numpy(outside)].any())
    assert bool(pixels[10:20, 10:20].any())
