"""What a reader must know before believing the first screen, each with the fact that it rests on."""

from __future__ import annotations

from collections.abc import Iterator

from server.report.content import RunContent
from shared_model.pages.numbers import interval, percent
from shared_model.pages.wording import Words

SHARES_CAUTION = "CI: other patients, same model. A model trained on other patients differs by more."
FEWEST_EVENTS = 100  # Collins, Ogundimu and Altman 2016, Stat Med 35:214: events (and non-events) of a validation
SPREAD_I2 = 0.5  # Higgins and Thompson 2002: from here on heterogeneity is called more than moderate
FEWEST_SITES = 3
SMALLEST_SHARE = 0.0005  # below, a share is written as 0.0%


def list_cautions(content: RunContent, words: Words) -> tuple[str, ...]:
    """Sentences, the most serious first."""
    return (*_of_the_run(content, words), *_of_the_metrics(content, words), *_of_the_shares(content, words))


def _of_the_run(content: RunContent, words: Words) -> Iterator[str]:
    if content.state == "running":
        yield words("caution.running")
    if content.config is not None and int(content.config.settings.get("min-sites", FEWEST_SITES)) < FEWEST_SITES:
        yield words("caution.few_sites", n=int(content.config.settings["min-sites"]))
    if content.quality is not None:
        accepted = [
            name for name, row in content.quality.hospitals.items() if row and row.grade == "red" and not row.refused
        ]
        if accepted:
            yield words("caution.accepted_red", names=", ".join(accepted))
    if content.test is not None and content.test.failed:
        yield words("caution.test_failed", n=len(content.test.failed), names=", ".join(content.test.failed))


def _of_the_metrics(content: RunContent, words: Words) -> Iterator[str]:
    pooled = content.test.pooled if content.test else None
    if pooled is None:
        return
    non_events = pooled.n - pooled.events
    if min(pooled.events, non_events) < FEWEST_EVENTS:
        event, non_event = ("deaths", "survivors") if content.counts_deaths else ("events", "non_events")
        fewer = non_event if non_events < pooled.events else event
        yield words(f"caution.few_{fewer}", n=min(pooled.events, non_events), fewest=FEWEST_EVENTS)
    if pooled.auc_ci is not None and pooled.auc_ci[0] <= 0.5 <= pooled.auc_ci[1]:
        yield words("caution.chance", ci=interval(pooled.auc_ci))


def _of_the_shares(content: RunContent, words: Words) -> Iterator[str]:
    explanation = content.explanation
    if explanation is None:
        return
    for key, failed in (("explain_failed", explanation.failed), ("spread_failed", explanation.spread_failed)):
        if failed:
            yield words(f"caution.{key}", n=len(failed), names=", ".join(failed))
    if explanation.suppressed:
        return
    if explanation.uses_nothing:
        yield words("first.shares_unused")
    unused = [
        name for name, entry in explanation.by_share() if entry.share is not None and entry.share < SMALLEST_SHARE
    ]
    if unused:
        yield words("caution.unused", names=", ".join(unused))
    for name, entry in explanation.by_share() if not explanation.is_single else ():
        if entry.i2 is not None and entry.i2 >= SPREAD_I2 and entry.hospitals is not None:
            yield words("caution.spread", name=name, i2=percent(entry.i2, digits=0))
    if content.quality is not None and content.quality.correlated:
        yield words("caution.correlated", n=len(content.quality.correlated))
