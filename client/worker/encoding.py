"""A hospital's patients as the fusion of a model sees them."""

from client.site import Site
from client.worker.image_features import embed_features, image_features
from shared_model.model.batch import Batch
from shared_model.model.fusion import Embeddings, MultimodalModel
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.training.epochs import Encoded, Rows, encode_all


def encode_patients(
    site: Site,
    model: MultimodalModel,
    preprocessing: Preprocessing,
    rows: Rows,
    *,
    networks_sha256: str,
    known: Embeddings | None = None,
) -> Encoded:
    """Embeddings in eval mode, without gradients.

    Args:
        site: the hospital.
        model: all weights of its encoders loaded.
        preprocessing: the common one.
        rows: of the patients.
        networks_sha256: hash of the model's fixed networks.
        known: embeddings of these patients that were computed before.
    """
    device = model.device
    before = dict(known or {})
    for name in (name for name in model.fixed if name not in before):
        features = image_features(site, model, preprocessing, name, networks_sha256=networks_sha256)
        before[name] = embed_features(site, model, features, name, rows)

    def batch_of(chosen: Rows) -> Batch:
        return preprocessing.batch(site.patients, chosen, schema=site.schema, device=device, without=before)

    return encode_all(model, batch_of, rows, device=device, known=before)
