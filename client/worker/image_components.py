"""Sums of image features at the hospital, for the projections of encoders that stay fixed."""

import numpy as np
from jaxtyping import Float

from client.outbound import Gate
from client.site import Site
from client.worker.image_features import image_features
from client.worker.local_model import LocalModel, open_whole_model
from shared_model.config import Settings
from shared_model.model.image_components import component_sums
from shared_model.protocol.messages import ComponentsRequest, SumsReply
from shared_model.training.epochs import Rows


def answer_components(site: Site, settings: Settings, request: ComponentsRequest, gate: Gate) -> SumsReply:
    """Sums, over one part's patients, of what each fixed image encoder makes of their images.

    Raises:
        NeedsWeightsError: the weights did not come and are not kept.
        ProtocolError: the weights do not fit the model.
        SuppressedError: too few patients.
    """
    local = open_whole_model(site, settings, request)
    rows = local.rows(request.part)
    features = {name: _features(local, name, rows) for name in local.model.fixed}
    # The features of a few patients are those patients: what fewer than the rule asks for have, nobody has.
    enough = {name: found[: len(found) * (len(found) >= gate.rule.min_patients)] for name, found in features.items()}
    sums = component_sums(enough)
    return SumsReply(arrays=gate.release_sums(sums, n_patients=len(rows)))


def _features(local: LocalModel, name: str, rows: Rows) -> Float[np.ndarray, "patient feature"]:
    """Features of the patients who have the image."""
    here = rows[local.site.patients.present[name][rows]]
    features = image_features(local.site, local.model, local.preprocessing, name, networks_sha256=local.networks_sha256)
    chosen: np.ndarray = features.cpu().numpy()[here]
    return chosen
