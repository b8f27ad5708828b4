"""The trust in this very prediction: the first thing on the page, with each fact that it rests on."""

from collections.abc import Iterator
from dataclasses import dataclass

from client.patient_page.content import Evidence, Explained, ModalityEffect, QualityNote, Test
from client.patient_page.effects import Scale
from client.patient_page.sections.events import EVENTS
from shared_model.pages.blocks import Mark
from shared_model.pages.numbers import interval, number, percent
from shared_model.pages.wording import Words
from shared_model.quality.checks import LIMITS, SHORT_CUT

LEANS = 0.1  # of a prediction's attribution: from here on it leans on a kind of data
CHANCE, RIGHT_SLOPE = 0.5, 1.0
WIDE = 1.0  # of the interval of a calibration slope: it tells next to nothing
NAMED = 6


@dataclass(frozen=True)
class Verdict:
    """The answer, and why.

    Attributes:
        mark: how it is shown.
        headline: the answer in a sentence or two, of this patient.
        reasons: facts, the most serious first.
    """

    mark: Mark
    headline: str
    reasons: tuple[str, ...]


def describe_verdict(explained: Explained, words: Words) -> Verdict:
    """The verdict on one patient's prediction."""
    red = [one for one in explained.evidence.findings if one.grade == "red" and _leans_on(one, explained)]
    doubt = _doubt_of(explained.evidence.test)
    told = [_tell_red(_worst(red, explained), explained, words)] if red else []
    if doubt:
        told.append(words(f"verdict.{'also_' if red else ''}{doubt}"))
    if not told:
        told.append(words("verdict.care"))
    reasons = (
        *_quality_of_the_model(explained, words),
        *_quality_of_the_data(explained, words),
        *_limits_of_the_input(explained, words),
    )
    return Verdict("red" if red or doubt in {"chance", "unknown"} else "amber", " ".join(told), reasons)


def list_doubts(evidence: Evidence, words: Words) -> tuple[str, ...]:
    """What speaks against all predictions at once, for a list of patients; their pages say more of each."""
    doubt = _doubt_of(evidence.test)
    red = [one for one in evidence.findings if one.grade == "red"]
    places = [one.modality or words("kind.outcome") for one in red]
    told = [f"{place}: {words(f'check.{one.check}')}" for place, one in zip(places, red, strict=True)]
    return (
        *((words(f"viewer.doubt_{doubt}"),) if doubt else ()),
        *((words("viewer.red", found="; ".join(dict.fromkeys(told))),) if told else ()),
    )


def _doubt_of(test: Test) -> str:
    """What speaks against every prediction of the model: a key of the words, "" for nothing."""
    if test.auc is None or test.auc_ci is None:
        return "unknown"
    if test.auc_ci[0] <= CHANCE:
        return "chance"
    low, high = test.calibration_slope_ci or (RIGHT_SLOPE, RIGHT_SLOPE)
    return "extreme" if high < RIGHT_SLOPE else "alike" if low > RIGHT_SLOPE else ""


def _modality_of(finding: QualityNote, explained: Explained) -> ModalityEffect | None:
    return next((one for one in explained.views["common"].modalities if one.name == finding.modality), None)


def _leans_on(finding: QualityNote, explained: Explained) -> bool:
    """True if the prediction rests on the data that a finding is about; on the outcome rests all of it."""
    modality = _modality_of(finding, explained)
    return not finding.modality or (modality is not None and Scale.of(explained).share(modality) >= LEANS)


def _worst(findings: list[QualityNote], explained: Explained) -> QualityNote:
    """Of this hospital before of another, and the one on which the prediction leans most."""
    scale = Scale.of(explained)

    def weight(finding: QualityNote) -> tuple[bool, float]:
        modality = _modality_of(finding, explained)
        return finding.hospital == explained.evidence.site, 1.0 if modality is None else scale.share(modality)

    return max(findings, key=weight)


def _tell_red(finding: QualityNote, explained: Explained, words: Words) -> str:
    place = _place(finding, explained)
    modality = _modality_of(finding, explained)
    if modality is None:
        return words(f"verdict.red_outcome_{place}", hospital=finding.hospital)
    return words(
        f"verdict.red_{place}",
        data=name_data(modality, words),
        share=percent(Scale.of(explained).share(modality), digits=0),
        found=words(f"check.{finding.check}"),
        hospital=finding.hospital,
    )


def _place(finding: QualityNote, explained: Explained) -> str:
    return "here" if finding.hospital == explained.evidence.site else "elsewhere"


def name_data(modality: ModalityEffect, words: Words) -> str:
    """A kind of data as a sentence names it."""
    known = modality.kind in {"static", "series", "image", *EVENTS}
    return words(f"kind.{modality.kind if known else 'further'}", name=modality.name)


def _quality_of_the_model(explained: Explained, words: Words) -> Iterator[str]:
    test = explained.evidence.test
    if test.auc is None or test.auc_ci is None:
        yield words("verdict.auc_unknown")
        return
    low, high = test.auc_ci
    key = "against" if high < CHANCE else "chance" if low <= CHANCE else "better"
    numbers = {"auc": number(test.auc), "ci": interval(test.auc_ci)}
    yield words(f"verdict.auc_{key}", n=test.n or 0, events=test.events or 0, **numbers)
    yield _tell_slope(explained, words)
    found = explained.evidence.findings
    tainted = sorted({one.hospital for one in found if one.check == SHORT_CUT and one.grade == "red"})
    if tainted:
        yield words("verdict.auc_flattered", hospitals=", ".join(tainted))


def _tell_slope(explained: Explained, words: Words) -> str:
    slope, ends = explained.evidence.test.calibration_slope, explained.evidence.test.calibration_slope_ci
    if slope is None or ends is None:
        return words("verdict.slope_unknown")
    low, high = ends
    if high < RIGHT_SLOPE:
        key = "extreme"
    elif low > RIGHT_SLOPE:
        key = "alike"
    else:
        key = "wide" if high - low > WIDE else "right"
    return words(f"verdict.slope_{key}", slope=number(slope), ci=interval(ends))


def _quality_of_the_data(explained: Explained, words: Words) -> Iterator[str]:
    evidence = explained.evidence
    here = [one for one in evidence.findings if one.hospital == evidence.site]
    elsewhere = [one for one in evidence.findings if one.hospital != evidence.site and one.grade == "red"]
    for finding in (*sorted(here, key=lambda one: one.grade != "red"), *elsewhere):
        yield _tell_finding(finding, explained, words)
    if not here:
        yield words("verdict.no_finding")
    if not evidence.is_judged:
        yield words("verdict.not_judged", site=evidence.site)


def _tell_finding(finding: QualityNote, explained: Explained, words: Words) -> str:
    modality = _modality_of(finding, explained)
    data = words("kind.outcome") if modality is None else name_data(modality, words)
    value = "" if finding.value is None else words("verdict.value", value=f"{finding.value:g}")
    text = words(
        f"verdict.finding_{_place(finding, explained)}",
        grade=words(f"verdict.{finding.grade}"),
        hospital=finding.hospital,
        data=data,
        items="" if not finding.items else words("verdict.items", items=_some(finding.items, words)),
        found=words(f"check.{finding.check}"),
        number=LIMITS[finding.check].number + value,
    )
    if finding.accepted:
        text += " " + words("verdict.accepted")
    if modality is not None:
        share = Scale.of(explained).share(modality)
        has_effect = Scale.of(explained).has_effect(modality.phi)
        text += " " + words(f"verdict.{'rests' if has_effect else 'rests_not'}", share=percent(share, digits=0))
    return text


def _some(names: tuple[str, ...], words: Words) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else words("verdict.more", shown=shown, n=len(names) - NAMED)


def _limits_of_the_input(explained: Explained, words: Words) -> Iterator[str]:
    evidence, view = explained.evidence, explained.views["common"]
    unused = [name_data(one, words) for one in view.modalities if one.name in evidence.unused]
    if unused:
        yield words("verdict.unused", names=", ".join(unused))
    unproven = [name_data(one, words) for one in view.modalities if one.name in evidence.unproven]
    if unproven:
        yield words("verdict.unproven", names=", ".join(unproven))
    untrained = [name_data(one, words) for one in view.modalities if one.name in evidence.untrained]
    if untrained:
        yield words("verdict.untrained", names=", ".join(untrained), encoder=evidence.encoder)
    lacking = [name_data(one, words) for one in view.modalities if not one.present]
    values = tuple(one.feature for one in explained.missing if one.feature is not None)
    if lacking:
        yield words("verdict.lacking", names=", ".join(lacking))
    if values:
        yield words("verdict.missing", n=len(values), names=_some(values, words))
