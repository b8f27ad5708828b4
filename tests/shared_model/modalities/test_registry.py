import pytest
import torch

from shared_model.config import Scalar, parse_settings
from shared_model.modalities.registry import open_modality
from shared_model.model.fusion import empty_model
from shared_model.schema import Schema


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"series-summaries": False, "series-embedding": 3},
        {"series-embedding": 0},
        {"image-embedding": 5, "image-encoder": "resnet50"},
        {"modalities": "static,drugs"},
    ],
)
def test_widths_are_those_of_the_model(small_study: Schema, changes: dict[str, Scalar]) -> None:
    settings = parse_settings(changes)
    model = empty_model(small_study, settings, device=torch.device("meta"))

    widths = {
        name: open_modality(name, small_study).width(settings) for name in settings.chosen_modalities(small_study)
    }

    assert widths == model.widths
