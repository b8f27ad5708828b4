"""Training: loss and AUC of every phase, who answered, and how much travelled."""

from collections.abc import Mapping, Sequence

from server.report.content import RunContent
from server.run_folder.records import Round, only_validates
from shared_model.pages.blocks import Block, Figure, Folded, Grid, Section, Table, Text
from shared_model.pages.plots import Trace, axis, layout, line
from shared_model.pages.wording import Words

MEGABYTE = 1e6

Curve = Mapping[int, float | None]


def describe_training(content: RunContent, words: Words) -> Section:
    """Curves per phase, and the table of rounds."""
    if not content.rounds:
        return Section(
            "training",
            words("training.title"),
            (Text(words("report.folds_apart" if content.folds else "training.none")),),
        )
    phases = list(dict.fromkeys(line.phase for line in content.rounds))
    blocks: list[Block] = [Text(words("training.intro"))]
    kept = content.model.rounds if content.model else None
    for phase in phases:
        rounds = [line for line in content.rounds if line.phase == phase]
        blocks.append(Grid(tuple(_draw_phase(phase, rounds, words, kept=kept if phase == phases[-1] else None))))
    if kept is not None:
        blocks.append(Text(words("training.kept", round=kept)))
    blocks.append(Folded(words("training.rounds"), (_round_table(content.rounds, words),)))
    return Section("training", words("training.title"), tuple(blocks))


def _draw_phase(phase: str, rounds: Sequence[Round], words: Words, *, kept: int | None) -> list[Figure]:
    """Losses and AUC; the training loss of unimodal heads is another quantity, and has a figure of its own."""
    validation = {_model_after(one): one.val_loss for one in rounds}
    training = {one.round: one.train_loss for one in rounds if one.train_loss is not None}
    auc = {_model_after(one): one.val_auc for one in rounds}
    apart = phase == "unimodal"
    told, trained = words("training.validation"), words("training.training")
    figures = [
        _draw(phase, "loss", {told: validation} if apart else {told: validation, trained: training}, words, kept=kept),
        _draw(phase, "auc", {told: auc}, words, kept=kept),
    ]
    if apart and training:
        figures.insert(1, _draw(phase, "heads", {trained: training}, words, kept=kept))
    return figures


def _model_after(line: Round) -> int:
    """How many rounds had made the model that a line validates: it came into the round; a line that only validates."""
    return line.round if line.train_loss is None else line.round - 1


def _draw(phase: str, what: str, curves: Mapping[str, Curve], words: Words, *, kept: int | None) -> Figure:
    numbers = sorted(set().union(*curves.values()))
    quantity = words(f"training.{what}")
    traces = [
        line(name, list(curve), list(curve.values()), series=i, dash="solid" if i == 0 else "dash")
        for i, (name, curve) in enumerate(curves.items())
    ]
    x = axis(words("training.after_round"), dtick=max(1, len(numbers) // 8), zeroline=False, showgrid=False)
    changes: Trace = {"showlegend": len(curves) > 1}
    if kept is not None and kept in numbers:
        changes["shapes"] = [
            {"type": "line", "x0": kept, "x1": kept, "yref": "paper", "y0": 0, "y1": 1, "line": _KEPT_LINE}
        ]
    known = [value for value in next(iter(curves.values())).values() if value is not None]
    ends = {"first": _ends(known, 0), "last": _ends(known, -1)}
    title = words(f"training.{what}_title", phase=phase)
    return Figure(
        name=f"training-{phase}-{what}",
        title=title,
        alt=words("training.alt", quantity=quantity, phase=phase, n=len(known), **ends),
        caption=words(f"training.{what}_caption"),
        data=traces,
        layout=layout(x, axis(quantity, zeroline=False), **changes),
        table=Table(
            caption=title,
            columns=(words("training.after_round"), *(f"{quantity}, {name}" for name in curves)),
            rows=tuple((str(i), *(curve.get(i) for curve in curves.values())) for i in numbers),
            name=f"training-{phase}-{what}",
        ),
        height=280,
    )


_KEPT_LINE: Trace = {"color": "var(--gray)", "dash": "dot", "width": 1.5}


def _ends(known: Sequence[float], which: int) -> str:
    return f"{known[which]:.3f}" if known else "-"


def _round_table(rounds: Sequence[Round], words: Words) -> Table:
    return Table(
        caption=words("training.rounds"),
        columns=tuple(
            words(f"training.{key}") for key in ("round", "phase", "answered", "failed", "seconds", "down", "up")
        ),
        rows=tuple(
            (
                words("training.validated" if only_validates(rounds, i) else "training.number", round=one.round),
                one.phase,
                words("training.of", part=len(one.answered), whole=len(one.asked)),
                "; ".join(f"{name}: {reason}" for name, reason in one.failed.items()) or words("training.nobody"),
                one.seconds,
                None if one.bytes_down is None else one.bytes_down / MEGABYTE,
                None if one.bytes_up is None else one.bytes_up / MEGABYTE,
            )
            for i, one in enumerate(rounds)
        ),
        name="rounds",
    )
