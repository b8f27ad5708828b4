"""A hospital of few patients keeps out of a study from whose sums the coordinator could compute them."""

from client.site import Site
from shared_model.config import Settings
from shared_model.errors import SuppressedError
from shared_model.privacy.second_moments import (
    COMMON_BACKGROUND,
    LEAST_RATIO,
    count_columns,
    modality_widths,
    second_moments,
)
from shared_model.protocol.messages import BACKGROUND


def refuse_readable_rows(site: Site, settings: Settings, *, kind: str) -> None:
    """Keep out of a study whose coordinator could compute this hospital's patients, and is not trusted with them.

    Args:
        site: the hospital.
        settings: of the study.
        kind: of the question; one about the background counts although the study does not ask for it.

    Raises:
        SuppressedError: training patients are fewer than twice the columns of the model, or those who have a modality
            fewer than twice its columns: of others these columns are zero, so their products are of those alone.
    """
    asked = second_moments(settings) or ((COMMON_BACKGROUND,) if kind == BACKGROUND else ())
    if settings.trust_coordinator or not asked:
        return
    train = site.split(settings).train
    owners = {"": (len(train), count_columns(site.schema, settings))}
    for name, width in modality_widths(site.schema, settings).items():
        n_present = int(site.patients.present[name][train].sum())
        if n_present >= site.rule.min_patients:  # fewer count as absent
            owners[name] = n_present, width
    for name, (n_patients, columns) in owners.items():
        if n_patients < LEAST_RATIO * columns:
            whose = f"with {name} fewer than twice its columns" if name else "fewer than twice the columns of the model"
            raise SuppressedError(
                f"training patients {whose} ({LEAST_RATIO} x {columns}): from {' and '.join(asked)} the coordinator "
                "could compute each of them. For this hospital to take part, make a new study with fewer columns "
                "(modalities=, image-embedding=, series-embedding=), or with strategy=fedavg and explain=none, or with "
                "trust-coordinator=true; it has to be approved."
            )
