"""After the statistics: the projections of image encoders that stay fixed, from all hospitals' features."""

import logging

import torch

from server.protocol.plan import StudyPlan
from server.protocol.whole_model import WholeModel
from server.run_folder.checkpoints import Progress
from shared_model.model.fusion import empty_model
from shared_model.model.image_components import principal_components
from shared_model.protocol.messages import ComponentsRequest

log = logging.getLogger("hipfed.server")


def fit_components(plan: StudyPlan, progress: Progress) -> None:
    """Let every fixed image encoder end in the principal components of its features; `progress.weights` changes.

    Raises:
        StudyError: no quorum.
    """
    shape = empty_model(plan.schema, plan.settings, device=torch.device("meta"))
    if not shape.fixed:
        return
    log.info("principal components of the images: %s", ", ".join(shape.fixed))
    sums = WholeModel(plan, progress, phase=plan.settings.phases[0]).ask(ComponentsRequest, part="train").sums
    fitted = dict(progress.weights)
    for name in shape.fixed:
        weight, bias = principal_components(sums, name, n_components=shape.widths[name])
        fitted |= {f"encoders.{name}.projection.weight": weight, f"encoders.{name}.projection.bias": bias}
    progress.weights = progress.best_weights = fitted
