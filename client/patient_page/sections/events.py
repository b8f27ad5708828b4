"""Medications and other events: what the patient got, beside the reference patients."""

from client.patient_page.content import Explained, FeatureEffect, ModalityEffect
from client.patient_page.effects import Scale
from client.patient_page.values import show_reference
from shared_model.pages.blocks import Block, Cell, Folded, Section, Table, Text
from shared_model.pages.numbers import significant
from shared_model.pages.wording import Words

EVENTS = ("any", "count", "dose")


def describe_events(explained: Explained, words: Words) -> tuple[Section, ...]:
    """A section for each set of events."""
    found = [one for one in explained.views["common"].modalities if one.kind in EVENTS]
    return tuple(
        Section(f"events-{i}", words("events.title", name=one.name), _describe(one, words, scale=Scale.of(explained)))
        for i, one in enumerate(found)
    )


def _describe(modality: ModalityEffect, words: Words, *, scale: Scale) -> tuple[Block, ...]:
    if not modality.present:
        return (Text(words("events.lacking", name=modality.name)),)
    ordered = sorted(modality.features, key=lambda feature: -abs(feature.phi))
    given = [feature for feature in ordered if feature.value]
    rest = [feature for feature in ordered if not feature.value]
    blocks: list[Block] = [Text(words(f"events.intro_{modality.kind}"))]
    if not scale.has_effect(modality.phi, *(feature.phi for feature in ordered)):
        blocks.append(Text(words("events.no_effect", name=modality.name, **scale.tell())))
    if given:
        blocks.append(_table(modality, given, words("events.given", n=len(given)), words))
    else:
        blocks.append(Text(words("events.none")))
    if rest:
        caption = words("events.not_given", n=len(rest))
        blocks.append(Folded(caption, (_table(modality, rest, caption, words),)))
    return tuple(blocks)


def _table(modality: ModalityEffect, features: list[FeatureEffect], caption: str, words: Words) -> Table:
    return Table(
        caption=caption,
        columns=tuple(words(f"events.{key}") for key in ("item", modality.kind, "reference", "phi", "se")),
        rows=tuple(_row(feature, words) for feature in features),
        name=f"events-{modality.name}",
    )


def _row(feature: FeatureEffect, words: Words) -> tuple[Cell, ...]:
    return (
        feature.name,
        _show(feature, words),
        show_reference(feature, words),
        f"{feature.phi:+.4f}",
        f"{feature.se:.4f}",
    )


def _show(feature: FeatureEffect, words: Words) -> str:
    if feature.kind == "binary":
        return words("value.yes" if feature.value else "value.no")
    return (
        significant(float(feature.value)) if isinstance(feature.value, float) and feature.value else words("value.no")
    )
