"""Image encoders that stay as they start: what travels, and embeddings that are known."""

import dataclasses

import pytest
import torch

from shared_model.config import Phase, parse_settings
from shared_model.model.batch import Batch
from shared_model.model.fusion import MultimodalModel, build_model
from shared_model.schema import Schema
from tests.shared_model.shapley.small_games import scramble


def build(study: Schema, *, fusion: str = "early", image_training: str = "fixed") -> MultimodalModel:
    return build_model(study, parse_settings({"fusion": fusion, "image-training": image_training}))


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize("phase", ["unimodal", "joint"])
def test_fixed_image_encoders_go_along_frozen_and_all_else_trains_as_before(
    fusion: str, phase: Phase, small_study: Schema
) -> None:
    fixed, trained = (build(small_study, fusion=fusion, image_training=how) for how in ("fixed", "trained"))
    of_images = {name for name in fixed.learned_names() if name.startswith("encoders.hip.")}
    assert fixed.fixed == ("hip",)
    assert trained.fixed == ()
    assert set(fixed.trained_in(phase)) == set(trained.trained_in(phase)) - of_images
    networks = {name for name in of_images if ".network." in name}
    assert set(fixed.frozen_in(phase)) == of_images - networks
    assert set(fixed.fixed_networks()) == networks
    assert set(fixed.changing_names()) == set(fixed.learned_names()) - networks
    assert trained.fixed_networks() == ()
    assert fixed.frozen_encoders(phase) == ("hip",)
    assert fixed.frozen_encoders("fusion") == fixed.modalities


def test_known_embeddings_are_taken_and_their_inputs_not_read(small_study: Schema, twelve: Batch) -> None:
    model = scramble(build(small_study)).eval()
    found = model.encode(twelve)
    without = dataclasses.replace(twelve, inputs={"drugs": twelve.inputs["drugs"]})
    known = {name: found[name] + 1 for name in ("hip", "vitals")}
    again = model.encode(without, known)
    assert all(torch.equal(again[name], known.get(name, found[name])) for name in model.modalities)
