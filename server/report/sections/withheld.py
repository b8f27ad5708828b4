"""Suppressed results with the reason: the small-cell rule with this run's numbers, and all that it hid."""

from collections.abc import Iterator

from server.report.content import RunContent
from server.run_folder.explanation import PRESENCE, FeatureEntry
from shared_model.pages.blocks import Block, Section, Table, Text
from shared_model.pages.wording import Words


def describe_withheld(content: RunContent, words: Words) -> Section:
    """The rule, then a row for each kind of number that was withheld."""
    settings = content.config.settings if content.config else {}
    limits = {
        key.replace("-", "_"): str(settings[key])
        for key in ("min-patients", "min-events", "min-non-events", "min-sites")
        if key in settings
    }
    blocks: list[Block] = [
        Text(words("withheld.rule", **limits) if len(limits) == 4 else words("withheld.rule_unknown")),
        Text(words("withheld.why")),
    ]
    rows = tuple(_list_withheld(content, words))
    if rows:
        blocks.append(
            Table(
                caption=words("withheld.table"),
                columns=tuple(words(f"withheld.{key}") for key in ("what", "count", "which", "reason")),
                rows=rows,
                name="withheld",
            )
        )
    else:
        blocks.append(Text(words("withheld.nothing")))
    return Section("withheld", words("withheld.title"), tuple(blocks))


def _list_withheld(content: RunContent, words: Words) -> Iterator[tuple[str, int, str, str]]:
    if content.test is not None and content.test.pooled is None:
        yield _row("pooled", [], words)
    if content.test is not None:
        hidden = [name for name, row in content.test.sites.items() if row is None]
        if hidden:
            yield _row("hospital_metrics", hidden, words)
    if content.quality is not None:
        hidden = [name for name, row in content.quality.hospitals.items() if row is None]
        if hidden:
            yield _row("hospital_quality", hidden, words)
        rows = {name: row for name, row in content.quality.hospitals.items() if row is not None}
        numbers = [f"{name}: {one.check}" for name, row in rows.items() for one in row.findings if one.value is None]
        if numbers:
            yield _row("quality_numbers", numbers, words)
    if content.test is not None and content.test.pooled is not None and not any(content.test.curves.values()):
        yield _row("curves", [], words)
    rounds = [str(one.round) for one in content.rounds if one.explanation and one.explanation.shares is None]
    if rounds:
        yield _row("rounds", rounds, words)
    yield from _list_of_explanation(content, words)


def _list_of_explanation(content: RunContent, words: Words) -> Iterator[tuple[str, int, str, str]]:
    explanation = content.explanation
    if explanation is None:
        return
    if explanation.suppressed:
        yield _row("explanation", [], words)
        return
    hidden = {
        "hospital_shares": [name for name, row in explanation.sites.items() if row is None],
        "strata": [
            f"{variable}: {label}"
            for variable, groups in explanation.strata.items()
            for label, row in groups.items()
            if row is None
        ],
        "modality_features": [name for name, entries in explanation.features.items() if entries is None],
        "features": [f"{modality}: {entry.name}" for modality, entry in _entries(content) if entry.suppressed],
        "value_groups": [
            f"{modality}: {entry.name}"
            for modality, entry in _entries(content)
            if _is_shown(entry) and (not entry.groups or any(group.suppressed for group in entry.groups))
        ],
        "levels": [f"{modality}: {entry.name}" for modality, entry in _entries(content) if entry.hidden_values],
        "counts": [
            *(name for name, entry in explanation.modalities.items() if entry.n_present is None),
            *(f"{modality}: {entry.name}" for modality, entry in _entries(content) if _is_shown(entry) and not entry.n),
        ],
        "histograms": [
            f"{modality}: {entry.name}"
            for modality, entry in _entries(content)
            if entry.histogram is None and _is_shown(entry)
        ],
    }
    for key, names in hidden.items():
        if names:
            yield _row(key, names, words)
    if not explanation.is_single and all(entry.i2 is None for entry in explanation.modalities.values()):
        yield _row("spread", [], words)


def _is_shown(entry: FeatureEntry) -> bool:
    """True if it is a feature of which something is told; having the modality at all has no values."""
    return not entry.suppressed and entry.name != PRESENCE


def _entries(content: RunContent) -> Iterator[tuple[str, FeatureEntry]]:
    features = content.explanation.features if content.explanation else {}
    for modality, entries in features.items():
        for entry in entries or ():
            yield modality, entry


def _row(key: str, names: list[str], words: Words) -> tuple[str, int, str, str]:
    return (
        words(f"withheld.{key}"),
        max(len(names), 1),
        ", ".join(names) or words("withheld.all"),
        words(f"withheld.{key}_reason"),
    )
