"""The first screen: what a clinician reads in ten seconds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from server.report.cautions import list_cautions
from server.report.content import RunContent
from server.report.shares import tell_range, tell_share
from server.run_folder.records import TestPart
from shared_model.evaluation.metric_intervals import Interval
from shared_model.evaluation.metrics import Metrics
from shared_model.pages.blocks import Tile
from shared_model.pages.numbers import SUPPRESSED, interval, number, percent
from shared_model.pages.wording import Words

SLOPE_RIGHT = (0.9, 1.1)  # what is called right: our own words for a number that stands beside them
RATIO_RIGHT = (0.9, 1.1)  # expected by observed events, the same
CHANCE = 0.5  # an AUC
_PERHAPS = "_perhaps"  # of words for what chance alone may explain


@dataclass(frozen=True)
class ShareBar:
    """A modality's share, drawn; lengths are percent of the width.

    Attributes:
        name: of the modality.
        share: in percent, or that it is not used.
        beside: its range over refits, or that there is no evidence; "" where there is neither.
        length: of the bar.
        low: where the range begins; with `high` the end of the bar where there is none.
        high: where it ends.
    """

    name: str
    share: str
    beside: str
    length: float
    low: float
    high: float


@dataclass(frozen=True)
class FirstScreen:
    """What stands above all else.

    Attributes:
        title: of the study.
        subtitle: which run, and how it stands.
        failure: why it failed; "" if it did not.
        tiles: numbers.
        bars: shares of the modalities, largest first.
        shares_note: what they are, or why there are none.
        cautions: sentences.
    """

    title: str
    subtitle: str
    failure: str
    tiles: tuple[Tile, ...]
    bars: tuple[ShareBar, ...]
    shares_note: str
    cautions: tuple[str, ...]


def describe_first_screen(content: RunContent, words: Words) -> FirstScreen:
    """The first screen of a run."""
    study = content.config.schema_.study if content.config else None
    cautions = list_cautions(content, words)
    bars = tuple(_list_bars(content, words))
    is_single = content.explanation is not None and content.explanation.is_single
    return FirstScreen(
        title=(study.title or study.name) if study else words("first.unknown_study"),
        subtitle=_describe_run(content, words),
        failure=content.reason if content.state == "failed" else "",
        tiles=tuple(_list_tiles(content, words)),
        bars=bars,
        shares_note=_tell_shares(bars, is_single=is_single, words=words) if bars else _why_no_shares(content, words),
        cautions=cautions,
    )


def _tell_shares(bars: tuple[ShareBar, ...], *, is_single: bool, words: Words) -> str:
    """What the bars are, and what the lines in them where there are any."""
    if is_single:
        return words("first.shares_single")
    has_lines = any(bar.low != bar.high for bar in bars)
    return " ".join(words("first.shares_note", line=words("first.line") if has_lines else "").split())


def _describe_run(content: RunContent, words: Words) -> str:
    text = words("first.subtitle", name=content.name, state=words(f"state.{content.state}"))
    return text + (words("first.pooled_folds", folds=", ".join(map(str, content.folds))) if content.folds else "")


def _list_tiles(content: RunContent, words: Words) -> Iterator[Tile]:
    deaths = words("first.deaths" if content.counts_deaths else "first.events")
    if content.config is not None:
        yield _hospitals(content, words)
    if content.test is None:
        for label in (words("first.patients"), deaths, words("first.auc")):
            yield Tile(label, words("first.none"), words("first.not_reached"), in_words=True)
        return
    pooled = content.test.pooled
    if pooled is None:
        for label in (words("first.patients"), deaths, words("first.auc"), words("first.calibration")):
            yield Tile(label, SUPPRESSED, words("first.suppressed"), in_words=True)
        return
    note = words("first.patients_note_folds" if content.folds else "first.patients_note")
    yield Tile(words("first.patients"), str(pooled.n), note)
    yield Tile(deaths, str(pooled.events), words("first.deaths_note", share=percent(pooled.events / pooled.n)))
    yield _auc(pooled, content, words)
    yield describe_calibration(content.test, pooled, content, words)


def _hospitals(content: RunContent, words: Words) -> Tile:
    config, test = content.config, content.test
    if config is None:
        return Tile(words("first.hospitals"), words("first.none"), in_words=True)
    taking_part = [member.site for member in config.roster]
    notes = []
    if test is not None and test.sites:
        all_answered = len(test.sites) == len(taking_part)
        notes.append(words("first.hospitals_all" if all_answered else "first.hospitals_tested", n=len(test.sites)))
    if content.hospitals_left():
        notes.append(words("first.hospitals_left", n=len(content.hospitals_left())))
    if config.excluded:
        names = ", ".join(config.excluded)
        notes.append(words("first.hospitals_excluded", n=len(config.excluded), names=names))
    return Tile(words("first.hospitals"), str(len(taking_part)), " ".join(notes) or words("first.hospitals_note"))


def _auc(pooled: Metrics, content: RunContent, words: Words) -> Tile:
    if pooled.auc is None:
        return Tile(words("first.auc"), words("first.not_defined"), in_words=True)
    meaning = "first.auc_note_deaths" if content.counts_deaths else "first.auc_note"
    note = words(meaning, pairs=str(round(100 * pooled.auc)))
    if pooled.auc_ci is not None and pooled.auc_ci[0] <= CHANCE:
        note = f"{words('first.auc_chance')} {note}"
    ends = words("first.ci", ci=interval(pooled.auc_ci))
    return Tile(words("first.auc"), number(pooled.auc), note, beside=ends, wide=True)


def describe_calibration(test: TestPart, pooled: Metrics, content: RunContent, words: Words) -> Tile:
    """Calibration in words: expected against observed events, and whether risks are too extreme.

    Expected events come from the calibration curve, whose groups hold every patient.
    """
    expected = expected_events(test)
    verdict, sentences = words("first.not_defined"), []
    if expected is not None and pooled.events:
        ratio = expected / pooled.events
        low, high = RATIO_RIGHT
        key = "low" if ratio < low else "high" if ratio > high else "right"
        ends = pooled.calibration_intercept_ci
        may_be_chance = key != "right" and _holds(ends, 0.0)
        # A shift of the log odds changes the log of the ratio by it times the share of non-events, its sign turned.
        survival = 1 - pooled.events / pooled.n
        may_be_wrong = (
            key == "right"
            and ends is not None
            and (survival * ends[0] < -math.log(high) or survival * ends[1] > -math.log(low))
        )
        verdict = words(f"calibration.{key}{_PERHAPS if may_be_chance or may_be_wrong else ''}")
        kind = "deaths" if content.counts_deaths else "events"
        told = number(expected, digits=1)
        sentences.append(words(f"calibration.expected_{kind}", expected=told, observed=pooled.events))
        if may_be_chance:
            sentences.append(words("calibration.expected_chance"))
        if may_be_wrong:
            told = number(pooled.calibration_intercept)
            sentences.append(words("calibration.intercept", value=told, ci=words("first.ci", ci=interval(ends))))
        if pooled.calibration_slope is not None:
            verdict += words(f"calibration.and_{_judge_slope(pooled)}")
    sentences.append(describe_slope(pooled, words))
    return Tile(words("first.calibration"), verdict, " ".join(sentences), in_words=True, wide=True)


def describe_slope(pooled: Metrics, words: Words) -> str:
    """What a calibration slope means, with its number and whether it may be 1 but for chance."""
    slope, ends = pooled.calibration_slope, pooled.calibration_slope_ci
    if slope is None:
        return words("calibration.slope_none")
    told = number(slope) if ends is None else f"{number(slope)} ({words('first.ci', ci=interval(ends))})"
    key = _judge_slope(pooled)
    sentence = words(f"calibration.slope_{key.removesuffix(_PERHAPS)}", slope=told)
    return f"{sentence} {words('calibration.slope_chance')}" if key.endswith(_PERHAPS) else sentence


def _judge_slope(pooled: Metrics) -> str:
    """Suffix of a key of the words; the slope is not None."""
    slope, (low, high) = pooled.calibration_slope or 0.0, SLOPE_RIGHT
    if low <= slope <= high:
        return "right"
    key = "against" if slope <= 0 else "extreme" if slope < low else "cautious"
    return key + _PERHAPS if _holds(pooled.calibration_slope_ci, 1.0) else key


def _holds(ends: Interval | None, value: float) -> bool:
    return ends is not None and ends[0] <= value <= ends[1]


def expected_events(test: TestPart) -> float | None:
    """Sum of the predicted risks of all patients; None where the run has no calibration curve."""
    curve = test.curves.get("calibration", {})
    predicted, sizes = curve.get("predicted", ()), curve.get("n", ())
    if not predicted or len(predicted) != len(sizes):
        return None
    return sum(risk * n for risk, n in zip(predicted, sizes, strict=True))


def _list_bars(content: RunContent, words: Words) -> Iterator[ShareBar]:
    explanation = content.explanation
    if explanation is None or explanation.suppressed or explanation.uses_nothing:
        return
    for name, entry in explanation.by_share():
        share = entry.share or 0.0
        is_drawn = not (explanation.is_single or entry.is_unused)
        low, high = (entry.share_range if is_drawn else None) or (share, share)
        yield ShareBar(
            name=name,
            share=tell_share(entry, words),
            beside="" if explanation.is_single else tell_range(entry, words),
            length=0.0 if entry.is_unused else _on_scale(share),
            low=_on_scale(share if low is None else low),
            high=_on_scale(share if high is None else high),
        )


def _on_scale(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 2)


def _why_no_shares(content: RunContent, words: Words) -> str:
    if content.explanation is not None:
        return words(f"first.shares_{'unused' if content.explanation.uses_nothing else 'suppressed'}")
    if content.config is not None and content.config.settings.get("explain") == "none":
        return words("first.shares_off")
    return words("first.shares_folds") if content.folds else words("first.shares_none")
