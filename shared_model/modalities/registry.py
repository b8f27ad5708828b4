"""The modalities of a study as objects: one look-up by kind, for those of hipfed and of other packages alike."""

from collections.abc import Mapping

from shared_model import extensions
from shared_model.modalities.events import EventsModality
from shared_model.modalities.images import ImageModality
from shared_model.modalities.modality import Modality
from shared_model.modalities.series import SeriesModality
from shared_model.modalities.static import StaticModality
from shared_model.schema import Schema

_KINDS: Mapping[str, type[Modality]] = {
    known.kind: known for known in (StaticModality, SeriesModality, EventsModality, ImageModality)
}


def open_modality(name: str, schema: Schema) -> Modality:
    """One modality of a study.

    Raises:
        ExtensionError: its kind is of a package that cannot be used.
        KeyError: the study has no such modality.
    """
    kind = schema.kinds[name]
    found: type[Modality] = _KINDS.get(kind) or extensions.load(extensions.MODALITIES, kind)
    return found(name, schema)


def open_modalities(schema: Schema) -> dict[str, Modality]:
    """All modalities of a study by name, in schema order."""
    return {name: open_modality(name, schema) for name in schema.modalities}
