"""Data quality: every hospital's grade with its reasons, correlated features, and the limits."""

from collections.abc import Iterator

from server.report.content import RunContent
from server.run_folder.records import QualityFinding, QualityRow
from shared_model.pages.blocks import Block, Cell, Folded, Mark, Marked, Section, Table, Text
from shared_model.pages.wording import Words

_MARKS: dict[str, Mark] = {"green": "good", "amber": "amber", "red": "red"}


def describe_data_quality(content: RunContent, words: Words) -> Section:
    """Hospitals that took part, were refused, or were excluded before; why."""
    title = words("quality.title")
    rows = tuple(_list_rows(content, words))
    if not rows:
        return Section("quality", title, (Text(words("report.folds_apart" if content.folds else "quality.none")),))
    blocks: list[Block] = [
        Text(words("quality.intro")),
        Table(
            caption=words("quality.table"),
            columns=tuple(words(f"quality.{key}") for key in ("hospital", "grade", "part", "reasons")),
            rows=rows,
            name="data-quality",
        ),
    ]
    quality = content.quality
    if quality is not None and quality.correlated:
        blocks.append(
            Table(
                caption=words("quality.correlated"),
                columns=tuple(words(f"quality.{key}") for key in ("pair", "modality", "r")),
                rows=tuple((pair.pair, pair.modality, pair.r) for pair in quality.correlated),
                name="correlated",
            )
        )
    if quality is not None and quality.limits:
        limits = Table(
            caption=words("quality.limits"),
            columns=tuple(words(f"quality.{key}") for key in ("check", "number", "amber_from", "red_from")),
            rows=tuple(
                (check, limit.number, limit.amber, words("quality.never") if limit.red is None else limit.red)
                for check, limit in quality.limits.items()
            ),
            name="quality-limits",
        )
        blocks.append(Folded(words("quality.limits"), (limits,)))
    return Section("quality", title, tuple(blocks))


def _list_rows(content: RunContent, words: Words) -> Iterator[tuple[Cell, ...]]:
    quality, excluded = content.quality, content.config.excluded if content.config else {}
    graded = quality.hospitals if quality else {}
    for name, row in graded.items():
        part = words("quality.refused") if row and row.refused else words("quality.took_part")
        if row is None:
            yield (name, Marked(words("quality.unknown"), "unknown"), part, words("quality.hidden"))
            continue
        if row.grade == "red" and not row.refused:
            part = words("quality.accepted")
        yield (name, _grade(row, words), part, describe_findings(row, words))
    for name, reason in (quality.failed if quality else {}).items():
        if name not in graded:
            yield (name, Marked(words("quality.unknown"), "unknown"), words("quality.took_part"), reason)
    for name, reason in excluded.items():
        if name not in graded:
            yield (name, Marked(words("quality.not_judged"), "unknown"), words("quality.excluded"), reason)


def _grade(row: QualityRow, words: Words) -> Marked:
    mark = _MARKS.get(row.grade, "unknown")
    return Marked(words(f"quality.is_{mark}"), mark)


def describe_findings(row: QualityRow, words: Words) -> str:
    """The reasons of a grade, red ones first."""
    if not row.findings:
        return words("quality.nothing")
    ordered = sorted(row.findings, key=lambda finding: finding.grade != "red")
    return "; ".join(_describe(finding, words) for finding in ordered)


def _describe(finding: QualityFinding, words: Words) -> str:
    where = ", ".join(part for part in (finding.modality, finding.item) if part) or words("quality.outcome")
    value = words("quality.no_value") if finding.value is None else f"{finding.value:g}"
    return words(
        "quality.finding",
        grade=finding.grade,
        check=finding.check,
        where=where,
        value=value,
        limit=f"{finding.limit:g}",
    )
