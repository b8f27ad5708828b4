"""Projections of fixed image encoders: principal components of their features over all hospitals' patients.

A residual network that learns from some hundred deaths memorises them: on films whose causes are worth an AUC of 0.55
it never did better than chance on other patients. What its features vary by from patient to patient needs no outcome
to be found. So hospitals send sums of features and of their products, the coordinator takes the principal components
of the total, and the encoder's projection maps to them, each with mean 0 and standard deviation 1. It is what one
hospital with all patients would find, for sums add up.

Source: Jolliffe 1982, Appl Stat 31:300 (regression on principal components; small ones may matter too, which is what is
lost here); federated sums for them: Grammenos et al. 2020, arXiv 1907.08059, for the idea, not the algorithm.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity

LIMIT = 100.0  # in the sums larger ones are cut; a ResNet-50's largest feature of radiographs was 37
_NOTHING = 1e-6  # a component with less than this part of the first one's variance is rounding

Arrays = Mapping[str, np.ndarray]


def component_quantities(n_features: Mapping[str, int]) -> Quantities:
    """The arrays of a components reply.

    Args:
        n_features: of the encoder of each image.
    """
    quantities = {}
    for name, width in n_features.items():
        quantities[f"{name}/n"] = Quantity((), MAX_PATIENTS, 0)
        quantities[f"{name}/sum"] = Quantity((width,), MAX_PATIENTS * LIMIT)
        quantities[f"{name}/products"] = Quantity((width * (width + 1) // 2,), MAX_PATIENTS * LIMIT**2)
    return quantities


def component_sums(features: Mapping[str, Float[np.ndarray, "_patient _feature"]]) -> dict[str, np.ndarray]:
    """One hospital's sums; those of two hospitals add up to those of their patients together.

    Args:
        features: of the encoder of each image, of the patients who have the image.
    """
    sums = {}
    for name, values in features.items():
        cut = np.clip(values.astype(np.float64), -LIMIT, LIMIT)
        products = cut.T @ cut
        sums[f"{name}/n"] = np.array(float(len(cut)))
        sums[f"{name}/sum"] = cut.sum(axis=0)
        sums[f"{name}/products"] = products[np.triu_indices(len(products))]  # symmetric: half of them tell all
    return sums


def principal_components(
    sums: Arrays, name: str, *, n_components: int
) -> tuple[Float[np.ndarray, "component feature"], Float[np.ndarray, "component"]]:
    """The linear map from features to their first components, standardised over the patients in the sums.

    Args:
        sums: total of `component_sums`.
        name: of the image.
        n_components: how many; where the features vary in fewer ways, the last ones are 0.

    Returns:
        Weight and bias, float32. The sign of a component is such that its largest weight is positive.
    """
    n = max(float(sums[f"{name}/n"]), 1.0)
    mean = sums[f"{name}/sum"] / n
    second = np.zeros((len(mean), len(mean)))
    second[np.triu_indices(len(mean))] = sums[f"{name}/products"] / n
    second += np.triu(second, 1).T
    variances, directions = np.linalg.eigh(second - np.outer(mean, mean))
    variances, directions = variances[::-1][:n_components], directions[:, ::-1][:, :n_components]
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(len(variances))])
    varies = variances > max(_NOTHING * float(variances[0]), 1e-12)
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, variances, 1.0)), 0.0)
    weight = np.zeros((n_components, len(mean)))
    weight[: len(scale)] = (directions * scale).T
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)
