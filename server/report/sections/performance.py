"""Performance of the model: metrics with intervals, and the four curves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from server.report.content import RunContent
from server.report.first_screen import describe_slope, expected_events
from server.report.sections.intervals import wilson_interval
from server.run_folder.records import Curve, TestPart
from shared_model.evaluation.metrics import Metrics
from shared_model.pages.blocks import Block, Cell, Figure, Grid, Notice, Section, Table, Text
from shared_model.pages.numbers import SUPPRESSED, interval, number, percent
from shared_model.pages.plots import (
    BLUE,
    ROW_HEIGHT,
    Trace,
    axis,
    layout,
    line,
    name_axis,
    points_with_intervals,
    reference_line,
    rows_height,
)
from shared_model.pages.wording import Words

_METRICS = (
    "auc",
    "auc_within",
    "auprc",
    "brier",
    "log_loss",
    "calibration_slope",
    "calibration_intercept",
    "ece",
)


def describe_performance(content: RunContent, words: Words) -> Section:
    """Metrics of all patients, curves, and hospitals that released their row."""
    title = words("performance.title")
    if content.test is None:
        return Section("performance", title, (Text(words("performance.none")),))
    test = content.test
    if test.pooled is None:
        return Section("performance", title, (Notice(words("performance.suppressed")),))
    blocks: list[Block] = [
        Text(
            words("performance.intro_folds", n=len(content.folds), sums=words("performance.sums"))
            if content.folds
            else words("performance.intro", sums=words("performance.sums"))
        ),
        _metric_table(test.pooled, words, are_folds=bool(content.folds)),
        Text(_describe_calibration(test, test.pooled, words)),
    ]
    curves = [draw(test, words) for draw in (_draw_roc, _draw_precision_recall, _draw_calibration, _draw_decision)]
    drawn = tuple(figure for figure in curves if figure is not None)
    blocks.append(Grid(drawn) if drawn else Text(words("performance.no_curves")))
    if test.sites:
        blocks.extend(_describe_hospitals(test, test.pooled, words))
    return Section("performance", title, tuple(blocks))


def _metric_table(pooled: Metrics, words: Words, *, are_folds: bool) -> Table:
    values = asdict(pooled)
    rows: list[tuple[Cell, ...]] = []
    for key in _METRICS:
        ends = values.get(f"{key}_ci")
        has_interval = f"{key}_ci" in values
        rows.append(
            (
                words(f"metric.{key}"),
                number(values[key], digits=3),
                interval(ends, digits=3) if has_interval else words("metric.no_interval"),
                words(f"metric.{key}_note{'_folds' if are_folds and key == 'auc_within' else ''}"),
            )
        )
    return Table(
        caption=words("performance.table", n=pooled.n, events=pooled.events),
        columns=tuple(words(f"metric.{key}") for key in ("name", "value", "ci", "meaning")),
        rows=tuple(rows),
        name="metrics",
    )


def _describe_calibration(test: TestPart, pooled: Metrics, words: Words) -> str:
    expected = expected_events(test)
    slope = describe_slope(pooled, words)
    if expected is None:
        return slope
    return words("performance.expected", expected=number(expected, digits=1), observed=pooled.events) + " " + slope


def _curve(test: TestPart, name: str, *keys: str) -> Curve | None:
    """A curve whose lists are there, of one length and not empty."""
    curve = test.curves.get(name, {})
    lengths = {len(curve.get(key, ())) for key in keys}
    return curve if len(lengths) == 1 and lengths != {0} else None


def _curve_table(name: str, curve: Curve, keys: tuple[str, ...], words: Words) -> Table:
    """The numbers of a curve; the first column, which heads the rows, is a number too."""
    columns = [curve[key] for key in keys]
    return Table(
        caption=words(f"{name}.title"),
        columns=tuple(words(f"curve.{key}") for key in keys),
        rows=tuple(tuple(float(value) for value in row) for row in zip(*columns, strict=True)),
        name=name,
    )


def _draw_roc(test: TestPart, words: Words) -> Figure | None:
    keys = ("false_positive_rate", "true_positive_rate", "threshold")
    curve = _curve(test, "roc", *keys)
    if curve is None or test.pooled is None:
        return None
    x, y, _ = (curve[key] for key in keys)
    auc, ci = number(test.pooled.auc), interval(test.pooled.auc_ci)
    return Figure(
        name="roc",
        title=words("roc.title"),
        alt=words("roc.alt", auc=auc, ci=ci, n=len(x)),
        caption=words("roc.caption", auc=auc, ci=ci),
        data=[line(words("curve.model"), x, y, series=0), reference_line(words("curve.chance"), [0, 1], [0, 1])],
        layout=layout(_unit_axis(words("curve.false_positive_rate")), _unit_axis(words("curve.true_positive_rate"))),
        table=_curve_table("roc", curve, keys, words),
    )


def _unit_axis(title: str) -> Trace:
    return axis(title, range=[-0.02, 1.02], tickformat=".0%", dtick=0.25, zeroline=False)


def _draw_precision_recall(test: TestPart, words: Words) -> Figure | None:
    keys = ("recall", "precision", "threshold")
    curve = _curve(test, "precision_recall", *keys)
    if curve is None or test.pooled is None:
        return None
    prevalence = test.pooled.events / test.pooled.n
    auprc = number(test.pooled.auprc)
    return Figure(
        name="precision_recall",
        title=words("precision_recall.title"),
        alt=words("precision_recall.alt", auprc=auprc, prevalence=number(prevalence)),
        caption=words("precision_recall.caption", auprc=auprc, prevalence=number(prevalence)),
        data=[
            line(words("curve.model"), curve["recall"], curve["precision"], series=0),
            reference_line(words("curve.prevalence"), [0, 1], [prevalence, prevalence]),
        ],
        layout=layout(_unit_axis(words("curve.recall")), _unit_axis(words("curve.precision"))),
        table=_curve_table("precision_recall", curve, keys, words),
    )


def _draw_calibration(test: TestPart, words: Words) -> Figure | None:
    keys = ("predicted", "observed", "n")
    curve = _curve(test, "calibration", *keys)
    if curve is None:
        return None
    predicted, observed, sizes = (curve[key] for key in keys)
    ends = [wilson_interval(share, n) for share, n in zip(observed, sizes, strict=True)]
    top = min(1.0, 1.05 * max(*predicted, *(high for _, high in ends)))
    points = line(words("curve.model"), predicted, observed, series=0)
    points |= {
        "mode": "markers",
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - share for share, (_, high) in zip(observed, ends, strict=True)],
            "arrayminus": [share - low for share, (low, _) in zip(observed, ends, strict=True)],
            "color": BLUE,
            "thickness": 1.2,
            "width": 3,
        },
    }
    rows = tuple((*row, *both) for row, both in zip(zip(predicted, observed, sizes, strict=True), ends, strict=True))
    return Figure(
        name="calibration",
        title=words("calibration.title"),
        alt=words("calibration.alt", n=len(predicted), low=_percent(predicted[0]), high=_percent(predicted[-1])),
        caption=words("calibration.caption"),
        data=[points, reference_line(words("curve.ideal"), [0, top], [0, top])],
        layout=layout(
            axis(words("curve.predicted"), range=[0, top], tickformat=".0%", zeroline=False),
            axis(words("curve.observed"), range=[0, top], tickformat=".0%", zeroline=False),
        ),
        table=Table(
            caption=words("calibration.title"),
            columns=tuple(words(f"curve.{key}") for key in (*keys, "low", "high")),
            rows=rows,
            name="calibration",
        ),
    )


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _draw_decision(test: TestPart, words: Words) -> Figure | None:
    keys = ("threshold", "model", "treat_all", "treat_none")
    curve = _curve(test, "decision", *keys)
    if curve is None:
        return None
    threshold, model, treat_all, _ = (curve[key] for key in keys)
    top = max(0.01, *model)
    where = _describe_benefit(
        threshold, [own > max(all_, 0.0) for own, all_ in zip(model, treat_all, strict=True)], words
    )
    return Figure(
        name="decision",
        title=words("decision.title"),
        alt=f"{words('decision.alt', n=len(threshold))} {where}",
        caption=f"{words('decision.caption')} {where}",
        data=[
            line(words("curve.model"), threshold, model, series=0),
            line(words("curve.treat_all"), threshold, treat_all, series=1, dash="dash"),
            reference_line(words("curve.treat_none"), [threshold[0], threshold[-1]], [0, 0]),
        ],
        layout=layout(
            axis(words("curve.threshold"), tickformat=".0%", zeroline=False),
            axis(words("curve.net_benefit"), range=[-0.3 * top, 1.15 * max(top, *treat_all)], zeroline=False),
        ),
        table=_curve_table("decision", curve, keys, words),
    )


def _describe_benefit(threshold: Sequence[float], better: Sequence[bool], words: Words) -> str:
    """Where the model's net benefit is above that of treating all and none: a range only if it is so throughout."""
    if not any(better):
        return words("decision.never")
    if sum(better) == 1:
        return words("decision.better_once", of=len(better), low=percent(threshold[better.index(True)]))
    first, last = better.index(True), len(better) - 1 - list(reversed(better)).index(True)
    if not all(better[first : last + 1]):
        return words("decision.better_somewhere", n=sum(better), of=len(better))
    return words("decision.better", n=sum(better), low=percent(threshold[first]), high=percent(threshold[last]))


def _describe_hospitals(test: TestPart, pooled: Metrics, words: Words) -> list[Block]:
    """A forest plot of the AUC; suppressed hospitals stand in the table alone."""
    rows: Mapping[str, Metrics | None] = {words("performance.pooled"): pooled, **test.sites}
    shown = [(name, row) for name, row in rows.items() if row is not None]
    hidden = len(rows) - len(shown)
    blocks: list[Block] = []
    if len(shown) > 1:
        blocks.append(_draw_hospitals(rows, shown, words))
    else:
        blocks.append(_hospital_table(rows, words))
    if hidden:
        blocks.append(Text(words("performance.hidden", n=hidden)))
    return blocks


def _draw_hospitals(rows: Mapping[str, Metrics | None], shown: list[tuple[str, Metrics]], words: Words) -> Figure:
    names = [name for name, _ in shown]
    values, ends = [row.auc for _, row in shown], [row.auc_ci for _, row in shown]
    return Figure(
        name="auc_by_hospital",
        title=words("performance.forest_title"),
        alt=words("performance.forest_alt", n=len(shown) - 1),
        caption=words("performance.forest_caption"),
        data=[points_with_intervals(words("metric.auc"), list(range(len(shown))), values, ends, series=0)],
        layout=layout(axis(words("metric.auc"), range=[0, 1.02], zeroline=False), name_axis(names), showlegend=False),
        table=_hospital_table(rows, words),
        height=rows_height(len(shown)) - ROW_HEIGHT,
    )


def _hospital_table(rows: Mapping[str, Metrics | None], words: Words) -> Table:
    def cells(name: str, row: Metrics | None) -> tuple[Cell, ...]:
        if row is None:
            return (name, *([SUPPRESSED] * 7))
        return (
            name,
            row.n,
            row.events,
            number(row.auc, digits=3),
            interval(row.auc_ci, digits=3),
            number(row.brier, digits=3),
            number(row.log_loss, digits=3),
            number(row.calibration_slope, digits=2),
        )

    headings = ("hospital", "n", "events", "auc", "auc_ci", "brier", "log_loss", "calibration_slope")
    return Table(
        caption=words("performance.hospital_table"),
        columns=tuple(words(f"metric.{key}") for key in headings),
        rows=tuple(cells(name, row) for name, row in rows.items()),
        name="hospitals",
    )
