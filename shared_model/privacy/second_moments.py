"""Questions that ask for products of columns, and the number of training patients that a hospital needs for them.

A Hessian of a linear head is X'WX, with the training patients as rows of X and weights W that change with the model.
Two of them, or one and the common background's X'X, are enough to find every row of X where there are no more rows than
columns: their common eigenvectors are the rows. With twice as many rows as columns each sum holds fewer numbers than
the rows, and this way is closed. As columns of a modality are zero where it is absent, the rule counts the patients of
each modality, too. A coordinator that chooses the weights finds other ways, which no such rule closes. The principal
components of images are not among these questions: their products come once, of features that no other question is
about, and alone they tell rows only up to a rotation.
"""

import torch

from shared_model.config import Settings
from shared_model.model.fusion import empty_model
from shared_model.schema import Schema
from shared_model.training.newton_rules import uses_newton

LEAST_RATIO = 2  # training patients to columns
NEWTON, COMMON_BACKGROUND = "Newton's method (strategy=newton)", "the common background (explain)"


def second_moments(settings: Settings) -> tuple[str, ...]:
    """Names of the steps of a study that ask for products of columns, summed over the training patients."""
    asked = {NEWTON: uses_newton(settings, "fusion"), COMMON_BACKGROUND: settings.explain != "none"}
    return tuple(name for name, is_asked in asked.items() if is_asked)


def count_columns(schema: Schema, settings: Settings) -> int:
    """Columns of the model: of all embeddings together, and the constant one."""
    return sum(modality_widths(schema, settings).values()) + 1


def modality_widths(schema: Schema, settings: Settings) -> dict[str, int]:
    """Columns of each modality's embedding."""
    return dict(empty_model(schema, settings, device=torch.device("meta")).widths)


def least_patients(schema: Schema, settings: Settings) -> int:
    """Training patients that a hospital needs to take part in a deployment; 0 where any number will do."""
    if settings.trust_coordinator or not second_moments(settings):
        return 0
    return LEAST_RATIO * count_columns(schema, settings)
