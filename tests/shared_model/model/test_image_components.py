import numpy as np
import pytest

from shared_model.model.image_components import LIMIT, component_quantities, component_sums, principal_components
from shared_model.protocol.quantities import check_arrays

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 8)) + RNG.normal(size=8)  # vary in three ways


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    weight, bias = principal_components(component_sums({"hip": FEATURES}), "hip", n_components=2)

    found = FEATURES @ weight.T + bias
    left, _, _ = np.linalg.svd(FEATURES - FEATURES.mean(axis=0), full_matrices=False)
    expected = left[:, :2] * np.sqrt(len(FEATURES))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.T @ found / len(found), np.eye(2), atol=1e-5)


def test_component_has_a_positive_largest_weight() -> None:
    weight, _ = principal_components(component_sums({"hip": FEATURES}), "hip", n_components=3)
    assert (weight[np.arange(3), np.abs(weight).argmax(axis=1)] > 0).all()


def test_components_beyond_what_varies_are_zero() -> None:
    weight, bias = principal_components(component_sums({"hip": FEATURES}), "hip", n_components=12)
    assert weight.shape == (12, 8)
    assert np.abs(weight[:3]).max(axis=1).min() > 0
    assert not weight[3:].any()
    assert not bias[3:].any()


@pytest.mark.parametrize("features", [np.ones((50, 4)), np.zeros((0, 4)), FEATURES[:1]], ids=["same", "none", "one"])
def test_projection_of_images_that_do_not_differ_is_zero(features: np.ndarray) -> None:
    weight, bias = principal_components(component_sums({"hip": features}), "hip", n_components=2)
    np.testing.assert_allclose(weight, 0, atol=1e-6)
    np.testing.assert_allclose(bias, 0, atol=1e-6)


@pytest.mark.parametrize("cut", [0, 1, 77])
def test_components_of_summed_hospitals_are_those_of_their_pooled_patients(cut: int) -> None:
    one, other = component_sums({"hip": FEATURES[:cut]}), component_sums({"hip": FEATURES[cut:]})
    quantities = component_quantities({"hip": 8})
    total = {
        name: each.decode(np.asarray(each.encode(one[name]) + each.encode(other[name])))
        for name, each in quantities.items()
    }
    pooled = component_sums({"hip": FEATURES})
    for found, expected in zip(
        principal_components(total, "hip", n_components=3),
        principal_components(pooled, "hip", n_components=3),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_sums_of_wild_features_stay_on_the_allow_list() -> None:
    wild = np.array([[1e30, -1e30, 0.0, np.inf]])
    sums = component_sums({"hip": wild})
    check_arrays(sums, component_quantities({"hip": 4}), where="test")
    np.testing.assert_array_equal(sums["hip/sum"], [LIMIT, -LIMIT, 0, LIMIT])
