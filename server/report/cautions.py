"""Cautions of the first screen, each with the fact that it rests on."""

from collections.abc import Iterator

from server.report.content import RunContent
from server.report.sections.data_quality import describe_findings
from server.report.shares import tell_interval_meaning
from server.run_folder.explanation import Explanation
from shared_model.model.untrained_encoders import describe_encoder, is_untrained
from shared_model.pages.numbers import interval, percent
from shared_model.pages.wording import Words

SHARES_CAUTION = "CI: other patients, same model. A model trained on other patients differs by more."  # of the screen
FEWEST_EVENTS = 100  # Collins, Ogundimu and Altman 2016, Stat Med 35:214: events (and non-events) of a validation
SPREAD_I2 = 0.5  # Higgins and Thompson 2002: from here on heterogeneity is called more than moderate
FEWEST_SITES = 3


def list_cautions(content: RunContent, words: Words) -> tuple[str, ...]:
    """Sentences, the most serious first."""
    return (
        *_of_the_run(content, words),
        *_of_the_metrics(content, words),
        *_of_the_encoders(content, words),
        *_of_the_shares(content, words),
    )


def _of_the_run(content: RunContent, words: Words) -> Iterator[str]:
    if content.state in {"running", "interrupted"}:
        yield words("caution.running")
    if content.config is not None and int(content.config.settings.get("min-sites", FEWEST_SITES)) < FEWEST_SITES:
        yield words("caution.few_sites", n=int(content.config.settings["min-sites"]))
    if content.quality is not None:
        accepted = [
            name for name, row in content.quality.hospitals.items() if row and row.grade == "red" and not row.refused
        ]
        if accepted:
            yield words("caution.accepted_red", names=", ".join(accepted))
    if content.config is not None:
        for name in content.config.excluded:
            yield _tell_excluded(name, content, words)
    if content.test is not None and content.test.failed:
        yield words("caution.test_failed", n=len(content.test.failed), names=", ".join(content.test.failed))


def _tell_excluded(name: str, content: RunContent, words: Words) -> str:
    """A hospital that takes no part, with the reason; how many patients it has, no message says."""
    row = content.quality.hospitals.get(name) if content.quality else None
    if row is not None and row.refused:
        return words("caution.refused", name=name, reason=describe_findings(row, words))
    reason = content.config.excluded[name] if content.config else ""
    return words("caution.excluded", name=name, reason=reason.rstrip("."))


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


def _of_the_encoders(content: RunContent, words: Words) -> Iterator[str]:
    config = content.config
    if config is not None and (images := config.images()) and is_untrained(config.settings):
        yield words("caution.untrained", names=", ".join(images), encoder=describe_encoder(config.settings))


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
    else:
        yield from _of_what_is_used(explanation, words)
    if content.quality is not None and content.quality.correlated:
        yield words("caution.correlated", n=len(content.quality.correlated))


def _of_what_is_used(explanation: Explanation, words: Words) -> Iterator[str]:
    unused = [name for name, entry in explanation.by_share() if entry.lacks_evidence]
    if unused:
        yield words("caution.unused", names=", ".join(unused))
    if explanation.is_single:
        return
    yield tell_interval_meaning(explanation, words)
    for name, entry in explanation.by_share():
        if entry.i2 is not None and entry.i2 >= SPREAD_I2 and entry.hospitals is not None and not entry.is_unused:
            yield words("caution.spread", name=name, i2=percent(entry.i2, digits=0))
