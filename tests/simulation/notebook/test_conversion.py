import warnings

import matplotlib as mpl
import numpy as np
import pytest

from shared_model.modalities.feature import Feature
from shared_model.shapley.exact import ModalityValues
from shared_model.shapley.feature_values import FeatureTable, attribute_features
from shared_model.shapley.game import Background, FusionGame, Rows
from tests.shared_model.shapley.small_games import explain, make_model, make_rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # shap's own imports
    import shap

    from simulation.notebook.conversion import (
        feature_explanation,
        feature_frame,
        modality_explanation,
        modality_frame,
    )

mpl.use("Agg")
IDS = ("p1", "p2", "p3")
FEATURES = {
    "e0": (
        Feature("dose", "mg", (0,), edges=(0.0,), offset=10.0, slope=2.0),
        Feature("given", "", (1,), levels=("0", "1")),
    ),
    "e1": (Feature("ward", "", (0, 1, 2), levels=("a", "b", "c")),),
}


@pytest.fixture
def patients() -> Rows:
    return make_rows(make_model((2, 3)), 3, seed=1, absent=0.0)


@pytest.fixture
def values(patients: Rows) -> ModalityValues:
    model = make_model((2, 3), head="4")
    return explain(model, patients, make_rows(model, 6, seed=2))


@pytest.fixture
def tables(patients: Rows) -> dict[str, FeatureTable]:
    model = make_model((2, 3), head="4")
    background = Background(make_rows(model, 6, seed=2), "b")
    return attribute_features(FusionGame(model), patients, background, features=FEATURES, seeds=IDS)


def test_modality_explanation_sums_to_the_logit(values: ModalityValues) -> None:
    found = modality_explanation(values)

    np.testing.assert_allclose(found.base_values + found.values.sum(axis=1), values.logit, atol=1e-12)
    assert found.feature_names == ["e0", "e1"]


def test_feature_explanation_sums_to_the_logit_and_shows_values_in_units(
    values: ModalityValues, tables: dict[str, FeatureTable], patients: Rows
) -> None:
    found = feature_explanation(values, tables, features=FEATURES, patients=patients)

    np.testing.assert_allclose(found.base_values + found.values.sum(axis=1), values.logit, atol=1e-12)
    assert found.feature_names == ["e0: dose", "e0: given", "e0: presence", "e1: ward", "e1: presence"]
    np.testing.assert_allclose(found.data[:, 0], 10 + 2 * patients.embeddings["e0"][:, 0].numpy(), rtol=1e-6)
    assert np.isnan(found.data[:, 3]).all()  # a category has no order


@pytest.mark.parametrize("plot", ["waterfall", "bar", "beeswarm"])
def test_plots_of_shap_take_the_explanation(
    values: ModalityValues, tables: dict[str, FeatureTable], patients: Rows, plot: str
) -> None:
    found = feature_explanation(values, tables, features=FEATURES, patients=patients)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of matplotlib and shap
        axes = getattr(shap.plots, plot)(found[0] if plot == "waterfall" else found, show=False)

    labels = {text.get_text() for text in axes.get_yticklabels()}
    assert any("dose" in label for label in labels)


def test_modality_frame_has_a_row_for_each_patient_and_modality(values: ModalityValues) -> None:
    frame = modality_frame(values, patient_ids=IDS)

    assert frame["patient_id"].tolist() == ["p1", "p1", "p2", "p2", "p3", "p3"]
    assert frame.loc[frame["modality"] == "e1", "phi"].tolist() == values.phi[:, 1].tolist()


def test_feature_frame_holds_presence_beside_the_features(tables: dict[str, FeatureTable]) -> None:
    frame = feature_frame(tables, features=FEATURES, patient_ids=IDS)

    of_first = frame[(frame["patient_id"] == "p1") & (frame["modality"] == "e0")]
    assert of_first["feature"].tolist() == ["dose", "given", "presence"]
    assert of_first["phi"].tolist() == [*tables["e0"].phi[0], tables["e0"].presence[0]]
