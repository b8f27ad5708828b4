"""A run's own page: what changes while it goes on, and the figures of its rounds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from server.dashboard.records import RunDetail
from server.dashboard.time_left import TimeLeft, estimate_time_left
from server.dashboard.views import describe_auc, describe_seconds, describe_state, describe_time, describe_took
from server.run_folder.records import Round, only_validates
from shared_model.pages.blocks import (
    Block,
    BulletPoints,
    Cell,
    Figure,
    Grid,
    Marked,
    Notice,
    Section,
    Table,
    Text,
    Tile,
)
from shared_model.pages.escaping import isolated
from shared_model.pages.numbers import interval, number
from shared_model.pages.plots import Trace, axis, layout, line
from shared_model.pages.wording import Words

MEGABYTE = 1e6
LATEST_ROUNDS, LATEST_FAILURES = 15, 20
MOST_NAMED = 5  # hospitals in a row of the rounds; those above it have them all
_DASHES = ("solid", "dash", "dot")


@dataclass(frozen=True)
class RunView:
    """A run as its page shows it.

    Attributes:
        name: of the run.
        study: title of the study.
        state: word and mark.
        subtitle: when it began and last changed.
        reason: why it failed or is not going on; "" if there is nothing to say.
        problems: what is wrong with its files.
        tiles: numbers.
        folds: names of its folds.
        is_going_on: whether more is to come.
    """

    name: str
    study: str
    state: Marked
    subtitle: str
    reason: str
    problems: tuple[str, ...]
    tiles: tuple[Tile, ...]
    folds: tuple[str, ...]
    is_going_on: bool


def describe_run(run: RunDetail, words: Words) -> RunView:
    """What stands above all else."""
    summary = run.summary
    began = words("run.began", time=describe_time(summary.started)) if summary.started else ""
    return RunView(
        name=summary.name,
        study=summary.study,
        state=describe_state(summary.state, words),
        subtitle=f"{began} {words('run.changed', time=f'{summary.changed:%Y-%m-%d %H:%M:%S} UTC')}".strip(),
        reason="" if summary.state == "damaged" else summary.reason,
        problems=run.problems,
        tiles=tuple(_list_tiles(run, words)),
        folds=run.folds,
        is_going_on=summary.state == "running",
    )


def _list_tiles(run: RunDetail, words: Words) -> Iterator[Tile]:
    summary, last = run.summary, run.summary.last
    left = estimate_time_left(run.config, run.rounds)
    if last is not None:
        of_phase = words("run.of_phase", done=left.done, most=left.most, phase=left.phase) if left else last.phase
        yield Tile(words("run.round"), str(last.round), note=of_phase)
        answered = words("run.of", part=len(last.answered), whole=len(last.asked))
        yield Tile(words("run.answered"), answered, note=words("run.in_round", round=last.round))
    if summary.tested is not None:
        pooled = summary.tested.part.pooled
        beside = words("list.ci", ci=interval(pooled.auc_ci)) if pooled and pooled.auc_ci else ""
        note = words("list.patients", n=pooled.n, events=pooled.events) if pooled else words("run.too_few")
        value = describe_auc(summary.tested, words)
        yield Tile(words("run.test_auc"), value, note=note, beside=beside, in_words=pooled is None, wide=True)
    elif last is not None:
        note = words("run.val_note", loss=number(last.val_loss, digits=4))
        value = number(last.val_auc)
        yield Tile(words("run.val_auc"), value, note=note, in_words=last.val_auc is None, wide=True)
    if summary.state == "running" and last is not None:
        yield _describe_left(left, words)
    elif describe_took(summary, words):
        yield Tile(words("run.took"), describe_took(summary, words), note=words("run.took_note"), in_words=True)
    if run.rounds:
        yield _describe_bytes(run.rounds, words)


def _describe_left(left: TimeLeft | None, words: Words) -> Tile:
    label = words("run.left")
    if left is None or left.low_s is None or left.high_s is None:
        return Tile(label, words("run.left_unknown"), note=words("run.left_why"), in_words=True, wide=True)
    ends = {"low": describe_seconds(left.low_s, words), "high": describe_seconds(left.high_s, words)}
    after = words("run.left_later", phases=", ".join(left.later)) if left.later else words("run.left_last")
    note = words("run.left_note", phase=left.phase, after=after)
    return Tile(label, words("run.left_range", **ends), note=note, in_words=True, wide=True)


def _describe_bytes(rounds: Sequence[Round], words: Words) -> Tile:
    down, up = (sum(getattr(one, key) or 0 for one in rounds) / MEGABYTE for key in ("bytes_down", "bytes_up"))
    note = words("run.bytes_note", down=f"{down:.1f}", up=f"{up:.1f}")
    return Tile(words("run.bytes"), f"{down + up:.1f}", note=note, beside=words("run.megabytes"))


def describe_hospitals(run: RunDetail, words: Words) -> Section:
    """Who takes part, who answered, and who failed and why."""
    asked: dict[str, int] = {}
    answered: dict[str, int] = {}
    latest: dict[str, tuple[int, str]] = {}
    for one in run.rounds:
        for name in one.asked:
            asked[name] = asked.get(name, 0) + 1
        for name in one.answered:
            answered[name] = answered.get(name, 0) + 1
        latest |= {name: (one.round, reason) for name, reason in one.failed.items()}
    members = [member.site for member in run.config.roster] if run.config else []
    excluded = dict(run.config.excluded) if run.config else {}
    names = sorted({*members, *asked, *latest} - set(excluded))
    left = {*names} - {*members} if members else set()
    last = run.rounds[-1] if run.rounds else None
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            Marked(words("hospitals.left"), "unknown") if name in left else _describe_answer(name, last, words),
            words("run.of", part=answered.get(name, 0), whole=asked.get(name, 0)),
            words("hospitals.failure", round=latest[name][0], reason=latest[name][1]) if name in latest else "",
        )
        for name in names
    ]
    rows += [(name, Marked(words("hospitals.excluded"), "red"), "", why) for name, why in sorted(excluded.items())]
    columns = tuple(words(f"hospitals.{key}") for key in ("name", "last", "rounds", "reason"))
    caption = words("hospitals.caption", n=len(names) - len(left), excluded=len(excluded))
    blocks: list[Block] = (
        [Table(caption, columns, tuple(rows), "hospitals")] if rows else [Text(words("hospitals.none"))]
    )
    failures = [
        *_describe_failures("spread", run.explanation.spread_failed if run.explanation else {}, words),
        *_describe_failures("explain", run.explanation.failed if run.explanation else {}, words),
        *_describe_failures("test", run.summary.tested.part.failed if run.summary.tested else {}, words),
        *(
            words("hospitals.failed_point", round=one.round, phase=one.phase, name=isolated(name), reason=reason)
            for one in reversed(run.rounds)
            for name, reason in one.failed.items()
        ),
    ]
    if failures:
        blocks.append(Notice(words("hospitals.failures", n=len(failures), shown=min(len(failures), LATEST_FAILURES))))
        blocks.append(BulletPoints(tuple(failures[:LATEST_FAILURES])))
    return Section("hospitals", words("hospitals.title"), tuple(blocks))


def _describe_failures(step: str, failed: Mapping[str, str], words: Words) -> list[str]:
    return [words(f"hospitals.failed_{step}", name=isolated(name), reason=reason) for name, reason in failed.items()]


def _describe_answer(name: str, last: Round | None, words: Words) -> Marked:
    if last is None or name not in {*last.asked, *last.failed}:
        return Marked(words("hospitals.not_asked"), "unknown")
    if name in last.failed or name not in last.answered:
        return Marked(words("hospitals.no_answer"), "red")
    return Marked(words("hospitals.answered"), "good")


def describe_curves(run: RunDetail, words: Words) -> Section:
    """Loss and AUC, round by round."""
    return Section("curves", words("curves.title"), (Text(words("curves.intro")), Grid(tuple(list_curves(run, words)))))


def list_curves(run: RunDetail, words: Words) -> list[Figure]:
    """The figures of `describe_curves`: a line a phase, for each is of another kind of model."""
    return [_draw(run.rounds, what, words) for what in ("val_loss", "val_auc", "train_loss")]


def _draw(rounds: Sequence[Round], what: str, words: Words) -> Figure:
    phases = list(dict.fromkeys(one.phase for one in rounds))
    traces, rows = [], []
    for i, phase in enumerate(phases):
        points = [(_model_after(one, what), getattr(one, what)) for one in rounds if one.phase == phase]
        known = [(x, y) for x, y in points if y is not None]
        numbers, values = [x for x, _ in known], [y for _, y in known]
        traces.append(line(phase, numbers, values, series=i % 6, dash=_DASHES[i % 3]))
        rows += [(str(number_), phase, value) for number_, value in known]
    quantity, title = words(f"curves.{what}"), words(f"curves.{what}_title")
    last = number(float(rows[-1][2]), digits=4) if rows else ""
    return Figure(
        name=f"curve-{what.replace('_', '-')}",
        title=title,
        alt=words("curves.alt", quantity=quantity, n=len(rows), last=last) if rows else words("curves.alt_none"),
        caption=words(f"curves.{what}_caption"),
        data=traces,
        layout=layout(
            axis(words("curves.round"), rangemode="tozero", zeroline=False, showgrid=False, tickformat="d"),
            axis(quantity, zeroline=False),
            showlegend=len(phases) > 1,
            **_EMPTY if not rows else {},
        ),
        table=Table(title, (words("curves.round"), words("curves.phase"), quantity), tuple(rows), f"curve-{what}"),
        height=280,
    )


def _model_after(one: Round, what: str) -> int:
    """A validation is of the model that came into the round, which the round before had made."""
    return one.round - 1 if what != "train_loss" and one.train_loss is not None else one.round


_EMPTY: Trace = {"xaxis": {"visible": False}, "yaxis": {"visible": False}}


def describe_rounds(run: RunDetail, words: Words) -> Section:
    """The latest rounds, the last one first."""
    if not run.rounds:
        return Section("rounds", words("rounds.title"), (Text(words("rounds.none")),))
    shown = range(len(run.rounds))[-LATEST_ROUNDS:][::-1]
    keys = ("round", "phase", "answered", "failed", "loss", "auc", "seconds", "down", "up")
    table = Table(
        caption=words("rounds.caption", shown=len(shown), n=len(run.rounds)),
        columns=tuple(words(f"rounds.{key}") for key in keys),
        rows=tuple(_describe_round(run.rounds, i, words) for i in shown),
        name="rounds",
    )
    return Section("rounds", words("rounds.title"), (table,))


def _name_failed(names: Sequence[str], words: Words) -> str:
    if not names:
        return words("rounds.nobody")
    shown = ", ".join(isolated(name) for name in names[:MOST_NAMED])
    return words("rounds.more", names=shown, n=len(names) - MOST_NAMED) if len(names) > MOST_NAMED else shown


def _describe_round(rounds: Sequence[Round], i: int, words: Words) -> tuple[Cell, ...]:
    one = rounds[i]
    return (
        words("rounds.validated" if only_validates(rounds, i) else "rounds.number", round=one.round),
        one.phase,
        words("run.of", part=len(one.answered), whole=len(one.asked)),
        _name_failed(list(one.failed), words),
        one.val_loss,
        one.val_auc,
        one.seconds,
        None if one.bytes_down is None else one.bytes_down / MEGABYTE,
        None if one.bytes_up is None else one.bytes_up / MEGABYTE,
    )
