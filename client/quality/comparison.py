"""Judge a hospital's sums against those of the others: units, levels, missing values, recordings, exposure."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from scipy.stats import fisher_exact

from client.quality.comparison_basis import Bench
from shared_model.quality.checks import (
    ALONE,
    DOSE_SHIFT,
    DOSE_SHIFT_SD,
    DURATION,
    FLAT_LINES,
    FLAT_SHARE,
    INTERVAL_SD,
    LEVEL_SHIFT,
    LIMITS,
    MISSING_MODALITY,
    MISSING_VALUES,
    PREVALENCE,
    SAMPLING_INTERVAL,
    SATURATION,
    UNIT_SHIFT,
    UNIT_SHIFT_SD,
    CheckFinding,
)
from shared_model.quality.measure import (
    INTERVAL,
    KNOWN,
    LEVEL,
    OUTCOME,
    PIXEL,
    PRESENCE,
    SPAN,
    STILL,
    Measure,
    is_logarithmic,
)
from shared_model.quality.measures import Moments, list_measures

# Below these spreads between patients a difference is not magnified: of logarithms (2 % and 5 %), shares and gray.
_SD_OF_LOG, _SD_OF_TIME, _SD_OF_SHARE, _SD_OF_GRAY = 0.02, 0.05, 0.05, 0.01


def judge_sums(bench: Bench) -> list[CheckFinding]:
    """Everything that sums can tell; what stands alone where nobody is there to compare with."""
    findings: list[CheckFinding] = []
    for measure in list_measures(bench.schema, bench.chosen):
        name = measure.key.removeprefix(f"{measure.modality}/")
        if name == STILL:
            findings += _judge_still(bench, measure)
        elif name == PIXEL:
            findings += _judge_white(bench, measure)
        if name in _JUDGES and bench.others:
            findings += _JUDGES[name](bench, measure)
    return findings


def _judge_level(bench: Bench, measure: Measure) -> list[CheckFinding]:
    """A unit shift moves the whole distribution by a factor; a smaller or additive move is only a shift of level."""
    found: list[CheckFinding] = []
    compared = bench.compare(measure, floor=_SD_OF_LOG)
    bench.count(UNIT_SHIFT, int(compared.valid.sum()))
    for i in compared.differing:
        where, sd = (measure.modality, measure.items[i]), float(compared.in_sd[i])
        if is_logarithmic(measure.ranges[i]):
            factor = float(np.exp(compared.difference[i]))
            effect = max(factor, 1 / factor)
            if measure.is_dose:
                if abs(sd) >= DOSE_SHIFT_SD:
                    limit = compared.limit(DOSE_SHIFT, i)
                    found += bench.find(DOSE_SHIFT, where, effect=effect, value=factor, limit=limit)
                continue
            if abs(sd) >= UNIT_SHIFT_SD and effect >= LIMITS[UNIT_SHIFT].amber:
                limit = compared.limit(UNIT_SHIFT, i)
                found += bench.find(UNIT_SHIFT, where, effect=effect, value=factor, limit=limit)
                continue
        found += bench.find(LEVEL_SHIFT, where, effect=abs(sd), value=sd)
    return found


def _judge_share(bench: Bench, measure: Measure) -> list[CheckFinding]:
    """What the others have and this hospital hardly has: a modality, a column, a channel."""
    compared = bench.compare(measure, floor=_SD_OF_SHARE)
    check = MISSING_MODALITY if measure.key == PRESENCE else MISSING_VALUES
    bench.count(check, int(compared.valid.sum()))
    found = []
    for i in compared.differing:
        ratio, whole = float(compared.ratio[i]), int(compared.own.n[i])
        item = measure.items[i]
        where = (item, "") if check == MISSING_MODALITY else (measure.modality, item)
        told: float | None = ratio
        if measure.is_count:
            told = None if bench.rule.shown_count(round(compared.own.total[i]), whole) is None else ratio
        found += bench.find(check, where, effect=1 / ratio if ratio > 0 else np.inf, value=told)
    return found


def _judge_time(bench: Bench, measure: Measure) -> list[CheckFinding]:
    compared = bench.compare(measure, floor=_SD_OF_TIME)
    check = SAMPLING_INTERVAL if measure.key.endswith(INTERVAL) else DURATION
    bench.count(check, int(compared.valid.sum()))
    found = []
    for i in compared.differing:
        if abs(compared.in_sd[i]) >= INTERVAL_SD:
            factor = float(np.exp(compared.difference[i]))
            effect, limit = max(factor, 1 / factor), compared.limit(check, i)
            found += bench.find(check, (measure.modality, ""), effect=effect, value=factor, limit=limit)
    return found


def _judge_still(bench: Bench, measure: Measure) -> list[CheckFinding]:
    """Flat lines: more than elsewhere, or by any measure."""
    own = Moments.read(bench.own, measure.key)
    compared = bench.compare(measure, floor=_SD_OF_SHARE) if bench.others else None
    differs = set(compared.differing) if compared else set()
    found = []
    for i in np.flatnonzero(own.n >= bench.rule.min_patients).tolist():
        bench.count(FLAT_LINES, 1)
        where, share = (measure.modality, measure.items[i]), float(own.mean[i])
        here: list[CheckFinding] = []
        if compared and i in differs:
            more = float(compared.difference[i])
            limit = compared.limit(FLAT_LINES, i)
            limit = limit if share >= FLAT_SHARE else replace(limit, red=None)
            here = bench.find(FLAT_LINES, where, effect=more, value=more, limit=limit)
        if not here:
            # Beside others, a channel that stands still everywhere may be made so.
            alone = ALONE[FLAT_LINES]
            alone = replace(alone, amber=alone.reached("red"), red=None) if bench.others else alone
            here = bench.find(FLAT_LINES, where, effect=share, value=share, limit=alone)
        found += here
    return found


def _judge_pixels(bench: Bench, measure: Measure) -> list[CheckFinding]:
    compared = bench.compare(measure, floor=_SD_OF_GRAY)
    found = []
    for i, check in enumerate(measure.items):
        bench.count(check, int(compared.valid[i]))
    for i in compared.differing:
        check, sd, more = measure.items[i], float(compared.in_sd[i]), float(compared.difference[i])
        effect, value = (more, more) if check == SATURATION else (abs(sd), sd)
        found += bench.find(check, (measure.modality, ""), effect=effect, value=value)
    return found


def _judge_white(bench: Bench, measure: Measure) -> list[CheckFinding]:
    """White over a large part of the images: looked at alone, since beside others it is compared."""
    own, i = Moments.read(bench.own, measure.key), measure.items.index(SATURATION)
    if bench.others or own.n[i] < bench.rule.min_patients:
        return []
    bench.count(SATURATION, 1)
    share = float(own.mean[i])
    return bench.find(SATURATION, (measure.modality, ""), effect=share, value=share, limit=ALONE[SATURATION])


def _judge_outcome(bench: Bench, measure: Measure) -> list[CheckFinding]:
    """Prevalence, by Fisher's exact test: events are few."""
    compared = bench.compare(measure, floor=_SD_OF_SHARE)
    if not compared.valid[0]:
        return []
    bench.count(PREVALENCE, 1)
    table = [_split(compared.own), _split(compared.others)]
    if fisher_exact(table).pvalue > bench.max_p(1):
        return []
    (own_events, own_rest), (events, rest) = table
    odds = float((own_events + 0.5) * (rest + 0.5) / ((own_rest + 0.5) * (events + 0.5)))
    effect, limit = max(odds, 1 / odds), compared.limit(PREVALENCE, 0)
    return bench.find(PREVALENCE, ("", ""), effect=effect, value=odds, limit=limit)


def _split(moments: Moments) -> tuple[int, int]:
    """Events and non-events."""
    events = round(float(moments.total[0]))
    return events, max(round(float(moments.n[0])) - events, 0)


_JUDGES: Mapping[str, Callable[[Bench, Measure], list[CheckFinding]]] = {
    OUTCOME: _judge_outcome,
    PRESENCE: _judge_share,
    KNOWN: _judge_share,
    LEVEL: _judge_level,
    INTERVAL: _judge_time,
    SPAN: _judge_time,
    PIXEL: _judge_pixels,
}
