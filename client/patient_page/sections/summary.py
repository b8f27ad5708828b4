"""The first screen: the risk, where it stands, what moves it, and what to be careful about."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from client.patient_page.content import Explained, View
from client.patient_page.effects import Scale
from client.patient_page.figures import risk_of
from client.patient_page.sections.cohort import count_place
from client.patient_page.sections.modalities import by_size, label_of
from client.patient_page.sections.verdict import Verdict, describe_verdict
from client.patient_page.values import name_of, show_middle, show_value
from client.patient_page.waterfall import PER_UNIT, show_step
from shared_model.pages.blocks import Tile
from shared_model.pages.numbers import percent
from shared_model.pages.wording import Words

Direction = Literal["raises", "lowers", "none"]
NAMED = 3  # features a direction in the sentence
SMALLEST_NAMED = 0.03  # of the sum of all |phi|: less is not worth a clinician's attention
CERTAIN = 2  # standard errors
FULL_BAR = 10  # units of the page's scale: a bar that fills its half has at least so many
FEW = 20  # patients: a rank among fewer says little


@dataclass(frozen=True)
class Bar:
    """A modality's effect in log odds; start and length in percent of the width, from the middle."""

    name: str
    effect: str
    direction: Direction
    start: float
    length: float


@dataclass(frozen=True)
class Summary:
    """What stands above all else."""

    patient_id: str
    subtitle: str
    verdict: Verdict
    tiles: tuple[Tile, ...]
    sentences: tuple[str, ...]
    bars_note: str
    bars: tuple[Bar, ...]
    cautions: tuple[str, ...]


def describe_summary(explained: Explained, words: Words) -> Summary:
    """The first screen of a patient."""
    return Summary(
        patient_id=explained.patient_id,
        subtitle=words("summary.subtitle", site=explained.site, study=explained.study),
        verdict=describe_verdict(explained, words),
        tiles=tuple(_list_tiles(explained, words)),
        sentences=tuple(_list_sentences(explained, words)),
        bars_note=words(
            "summary.modalities_note",
            **Scale.of(explained).tell(),
            base=f"{explained.views['common'].base_logit:.3f}",
            end=f"{explained.prediction.logit:.3f}",
        ),
        bars=tuple(list_bars(explained.views["common"], words, scale=Scale.of(explained))),
        cautions=tuple(_list_cautions(explained, words)),
    )


def _list_tiles(explained: Explained, words: Words) -> Iterator[Tile]:
    view = explained.views["common"]
    risk = percent(explained.prediction.probability)
    yield Tile(words("summary.risk"), risk, words("summary.risk_note", outcome=explained.outcome), wide=True)
    yield Tile(
        words("summary.reference"),
        percent(risk_of(view.base_logit)),
        words("summary.reference_note", n=view.rows),
        wide=True,
    )
    yield _place_in_cohort(explained, words)
    part = explained.part_of_run or "unknown"
    yield Tile(words("summary.part"), words(f"part.{part}"), words(f"part.{part}_note"), in_words=True, wide=True)


def _place_in_cohort(explained: Explained, words: Words) -> Tile:
    others = explained.cohort.risks
    label = words("summary.place")
    if not others:
        return Tile(label, words("summary.nobody"), words("summary.nobody_note"), in_words=True, wide=True)
    below, equal = count_place(others, explained.prediction.probability)
    kind = "test" if explained.cohort.part == "test" else "all"
    value = words(f"summary.place_{'ties' if equal else 'value'}", below=below, equal=equal, n=len(others))
    return Tile(label, value, words(f"summary.place_{kind}"), in_words=True, wide=True)


def _list_sentences(explained: Explained, words: Words) -> Iterator[str]:
    view = explained.views["common"]
    risk, base = percent(explained.prediction.probability), percent(risk_of(view.base_logit))
    yield words("summary.sentence", outcome=explained.outcome, risk=risk, base=base, n=view.rows)
    raising, lowering = list_named(view, words)
    if not raising and not lowering:
        yield words("summary.nothing")
        return
    for names, direction in ((raising, "raises"), (lowering, "lowers")):
        if names:
            key = f"summary.{direction}_one" if len(names) == 1 else f"summary.{direction}"
            yield words(key, names=_enumerate(names, words))


def list_named(view: View, words: Words) -> tuple[list[str], list[str]]:
    """What raises and what lowers the risk most: large enough to matter, and its direction certain."""
    found: list[tuple[str, float, float]] = []
    for modality in view.modalities:
        if not modality.present:
            found.append((label_of(modality, words), modality.phi, modality.se_background))
        elif modality.presence:
            found.append((words("step.having", modality=modality.name), modality.presence, 0.0))
        for feature in modality.features:
            if feature.kind == "whole":
                told = name_of(modality, feature, words)
            else:
                value, middle = show_value(feature, words), show_middle(feature, words)
                told = words(
                    "summary.named" if middle else "summary.named_alone", name=feature.name, value=value, middle=middle
                )
            found.append((told, feature.phi, feature.se))
    found = [item for item in found if abs(item[1]) > CERTAIN * item[2] and round(item[1] * PER_UNIT)]
    smallest = SMALLEST_NAMED * sum(abs(phi) for _, phi, _ in found)
    ordered = sorted((item for item in found if abs(item[1]) > smallest), key=lambda item: -abs(item[1]))
    raising = [name for name, phi, _ in ordered if phi > 0][:NAMED]
    return raising, [name for name, phi, _ in ordered if phi < 0][:NAMED]


def _enumerate(names: list[str], words: Words) -> str:
    isolated = [f"\u2068{name}\u2069" for name in names]  # a right-to-left name turns nothing around it
    if len(isolated) == 1:
        return isolated[0]
    return words("summary.and", first="; ".join(isolated[:-1]), last=isolated[-1])


def list_bars(view: View, words: Words, *, scale: Scale) -> Iterator[Bar]:
    """The kinds of data, the largest first: in log odds, which add up; the risk bends, and with it signs and ranks.

    What has no effect on the prediction has no colour, and says so; where nothing has, no bar is long.
    """
    shown = [(modality, round(modality.phi * PER_UNIT)) for modality in by_size(view)]
    full = max((abs(modality.phi) for modality in view.modalities), default=0.0)
    full = max(full, FULL_BAR * scale.unit)
    for modality, step in shown:
        length = 50 * abs(modality.phi) / full
        start = 50 if step > 0 else 50 - length
        effect = show_step(step)
        direction: Direction = "raises" if step > 0 else "lowers"
        if not scale.has_effect(modality.phi):
            effect, direction = f"{effect}, {words('scale.none')}", "none"
        yield Bar(label_of(modality, words), effect, direction, round(start, 2), round(length, 2))


def _list_cautions(explained: Explained, words: Words) -> Iterator[str]:
    yield words("caution.not_causal")
    if explained.part_of_run != "test":
        yield words(f"caution.{explained.part_of_run or 'unknown'}")
    if explained.cohort.risks and len(explained.cohort.risks) < FEW:
        yield words("caution.few", n=len(explained.cohort.risks))
