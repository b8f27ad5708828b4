"""The written form of a patient's values and those of the reference patients."""

from client.patient_page.content import FeatureEffect, ModalityEffect, Reference
from shared_model.pages.numbers import percent, significant
from shared_model.pages.wording import Words

SHOWN_LEVELS = 4


def show_value(feature: FeatureEffect, words: Words) -> str:
    """The patient's value with its unit, in words where it is missing; "" for what has no value of its own."""
    if feature.kind == "whole":
        return ""
    if feature.value is None:
        return words("value.missing")
    if feature.kind == "binary":
        return words("value.yes" if feature.value == 1 else "value.no")
    if isinstance(feature.value, str):
        return feature.value
    return with_unit(feature.value, feature.unit)


def with_unit(value: float, unit: str) -> str:
    """A number with four significant digits and its unit.

    >>> with_unit(38.9600001, "kPa"), with_unit(0.0, "")
    ('38.96 kPa', '0')
    """
    return f"{significant(value)} {unit}".strip()


def show_reference(feature: FeatureEffect, words: Words) -> str:
    """What the reference patients have: median and quartiles, or the share of each level."""
    reference = feature.reference
    if reference is None:
        return ""
    if not reference.n:
        return words("value.no_reference")
    if feature.kind == "binary":
        return words("value.reference_yes", share=percent(reference.levels["1"], digits=0))
    if feature.kind == "category":
        return _show_levels(reference, words)
    return _show_quartiles(reference, feature.unit, words)


def show_middle(feature: FeatureEffect, words: Words) -> str:
    """The reference patients' median, or share of the patient's own level, for a sentence; "" where there is none."""
    reference = feature.reference
    if reference is None or not reference.n:
        return ""
    if feature.kind == "number" and reference.median is not None:
        return words("value.median", median=with_unit(reference.median, feature.unit))
    level = str(int(feature.value)) if isinstance(feature.value, float) else str(feature.value)
    share = reference.levels.get(level)
    return "" if share is None else words("value.same_level", share=percent(share, digits=0))


def _show_levels(reference: Reference, words: Words) -> str:
    known = sorted(
        ((level, share) for level, share in reference.levels.items() if share), key=lambda pair: (-pair[1], pair[0])
    )
    shown = ", ".join(f"{level} {percent(share, digits=0)}" for level, share in known[:SHOWN_LEVELS])
    return shown if len(known) <= SHOWN_LEVELS else words("value.more_levels", shown=shown)


def _show_quartiles(reference: Reference, unit: str, words: Words) -> str:
    low, high = reference.quartiles
    if reference.median is None or low is None or high is None:
        return words("value.no_reference")
    ends = (significant(low), significant(high))
    return words("value.quartiles", median=with_unit(reference.median, unit), low=ends[0], high=ends[1])


def name_of(modality: ModalityEffect, feature: FeatureEffect, words: Words) -> str:
    """How a feature is called where features of several modalities stand together.

    What has no value of its own (an image, the pattern in time) is called after its modality.
    """
    if feature.kind == "whole":
        return words("value.of_modality", modality=modality.name, feature=feature.name)
    return feature.name
