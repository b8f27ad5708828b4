"""The effect of each kind of data on the risk, against the common background and the hospital's patients."""

from typing import Literal

from client.patient_page.content import Explained, ModalityEffect, View
from client.patient_page.figures import risk_of
from client.patient_page.waterfall import PER_UNIT, show_step
from shared_model.evaluation.metric_intervals import Z_95
from shared_model.pages.blocks import Block, Cell, Figure, Section, Table, Text
from shared_model.pages.numbers import percent
from shared_model.pages.plots import Trace, axis, layout, name_axis, points_with_intervals, rows_height
from shared_model.pages.wording import Words

_SERIES = 2  # green and purple: blue and orange are lowers and raises on this page
_OFFSET = 0.17  # rows above and below a name
_VIEW_COLUMNS = ("against", "rows", "base", "mean", "risk", "background_id")
VIEWS: tuple[Literal["common", "local"], ...] = ("common", "local")


def describe_modalities(explained: Explained, words: Words) -> Section:
    """Modalities, both backgrounds side by side."""
    blocks: list[Block] = [
        Text(words("modalities.intro")),
        _compare_views(explained, words),
        _draw(explained, words),
        Text(words("modalities.bend")),
    ]
    return Section("modalities", words("modalities.title"), tuple(blocks))


def list_views(explained: Explained) -> list[tuple[Literal["common", "local"], View]]:
    """Backgrounds; a hospital without other patients has none of its own."""
    return [(name, explained.views[name]) for name in VIEWS if name in explained.views]


def label_of(modality: ModalityEffect, words: Words) -> str:
    """The modality, or that the patient lacks it."""
    return modality.name if modality.present else words("step.without", modality=modality.name)


def by_size(view: View) -> list[ModalityEffect]:
    """The largest effect first."""
    return sorted(view.modalities, key=lambda modality: -abs(modality.phi))


def points(value: float, words: Words) -> str:
    """A difference of risks in percentage points."""
    text = f"{100 * value:+.1f}"
    return words("modalities.points", points=text.lstrip("+-") if float(text) == 0 else text)


def _compare_views(explained: Explained, words: Words) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, view in list_views(explained):
        rows.append(
            (
                words(f"view.{name}"),
                view.rows,
                percent(risk_of(view.base_logit)),
                percent(view.base_probability),
                percent(explained.prediction.probability),
                view.background_id[:12],
            )
        )
    return Table(
        caption=words("modalities.views"),
        columns=tuple(
            words(f"modalities.{key}") for key in ("against", "rows", "base", "mean", "risk", "background_id")
        ),
        rows=tuple(rows),
        name="backgrounds",
    )


def _draw(explained: Explained, words: Words) -> Figure:
    order = by_size(explained.views["common"])
    names = [label_of(modality, words) for modality in order]
    traces: list[Trace] = []
    for series, (name, view) in enumerate(list_views(explained)):
        found = {modality.name: modality for modality in view.modalities}
        values = [found[modality.name] for modality in order]
        traces.append(
            points_with_intervals(
                words(f"view.{name}_short"),
                [row + _OFFSET * (2 * series - 1) for row in range(len(order))],
                [modality.phi for modality in values],
                [_interval(modality) for modality in values],
                series=_SERIES + series,
            )
        )
    told = "; ".join(f"{label_of(one, words)} {show_step(round(one.phi * PER_UNIT))}" for one in order)
    return Figure(
        name="modalities",
        title=words("modalities.figure"),
        alt=words("modalities.alt", told=told),
        caption=words("modalities.caption"),
        data=traces,
        layout=layout(axis(words("modalities.axis"), zeroline=True), name_axis(names)),
        table=_table(explained, order, words),
        height=rows_height(len(order)) + 12 * len(order),
    )


def _interval(modality: ModalityEffect) -> tuple[float, float]:
    half = Z_95 * modality.se_background
    return modality.phi - half, modality.phi + half


def _table(explained: Explained, order: list[ModalityEffect], words: Words) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for entry in order:
        for name, view in list_views(explained):
            found = next(one for one in view.modalities if one.name == entry.name)
            rows.append(
                (
                    label_of(found, words),
                    words(f"view.{name}"),
                    show_step(round(found.phi * PER_UNIT)),
                    f"{found.se_background:.3f}",
                    points(found.phi_probability, words),
                    percent(found.share, digits=0),
                )
            )
    return Table(
        caption=words("modalities.table"),
        columns=tuple(words(f"modalities.{key}") for key in ("modality", "against", "phi", "se", "pp", "share")),
        rows=tuple(rows),
        name="modalities",
    )
