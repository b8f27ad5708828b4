"""Vital signs along time, each point coloured by what it does to the risk."""

from collections.abc import Iterator

import numpy as np

from client.patient_page.content import Explained, Recording
from client.patient_page.effects import Scale
from client.patient_page.waterfall import PER_UNIT, show_step
from shared_model.pages.blocks import Block, Cell, Figure, Folded, Grid, Heading, Section, Table, Text
from shared_model.pages.plots import BLUE, GRAY, INK, LINE, ORANGE, Trace, axis, layout
from shared_model.pages.wording import Words


def describe_series(explained: Explained, words: Words) -> Section | None:
    """Every series of the patient; None where the study has none."""
    modalities = [one for one in explained.views["common"].modalities if one.kind == "series"]
    if not modalities:
        return None
    blocks: list[Block] = []
    for i, modality in enumerate(modalities):
        if len(modalities) > 1:
            blocks.append(Heading(modality.name))
        recording = explained.series.get(modality.name)
        if recording is None:
            blocks.append(Text(words("series.lacking", name=modality.name)))
        elif recording.cells is None:
            blocks.append(Text(words("series.unavailable", reason=recording.unavailable)))
        else:
            blocks.extend(_describe(f"series-{i}", modality.name, recording, words, scale=Scale.of(explained)))
    return Section("series", words("series.title"), tuple(blocks))


def _describe(key: str, name: str, recording: Recording, words: Words, *, scale: Scale) -> Iterator[Block]:
    phi = np.asarray(_cells(recording))
    raising, lowering = float(phi[phi > 0].sum()), float(phi[phi < 0].sum())
    has_effect = scale.has_effect(raising, lowering)
    texts = {"phi": recording.phi, "raising": raising, "lowering": lowering}
    told = {part: show_step(round(value * PER_UNIT)) for part, value in texts.items()}
    told |= {"name": name, "limit": f"{scale.unit:.3f}"}
    yield Text(words(f"series.{'intro' if has_effect else 'no_effect'}", n=recording.references, **told))
    full = scale.unit if has_effect else None
    yield Grid(tuple(_draw(f"{key}-{c}", recording, c, full, words) for c in range(len(recording.channels))))
    yield _part_table(key, recording, words)
    if recording.segments is not None:
        yield Folded(words("series.segments"), (_segment_table(key, recording, words),))


def _cells(recording: Recording) -> tuple[tuple[float, ...], ...]:
    return recording.cells.phi if recording.cells is not None else ()


def _draw(key: str, recording: Recording, c: int, full: float | None, words: Words) -> Figure:
    channel = recording.channels[c]
    label = f"{channel.name} ({channel.unit})" if channel.unit else channel.name
    values = [row[c] for row in recording.measured]
    phi = [row[c] for row in _cells(recording)]
    kept = [i for i, value in enumerate(values) if value is not None]
    sums = words("series.sum", phi=_show(sum(phi)), n=len(kept), of=len(values))
    return Figure(
        name=key,
        title=label,
        alt=words("series.alt", name=label, **_span(values, words)) + " " + sums,
        caption=sums,
        data=[_trace(recording, values, phi, full)],
        layout=layout(axis(words("series.time", unit=recording.time_unit), zeroline=False), axis("", zeroline=False)),
        table=Table(
            caption=label,
            columns=(words("series.time", unit=recording.time_unit), label, words("series.phi")),
            rows=tuple(
                (f"{time:g}", words("value.not_measured") if value is None else value, f"{part:+.3g}")
                for time, value, part in zip(recording.time, values, phi, strict=True)
            ),
            name=key,
        ),
        height=240,
    )


def _trace(recording: Recording, values: list[float | None], phi: list[float], full: float | None) -> Trace:
    """Points along time; the colour is full from a |phi| of `full` on, and there is none where that is None."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(recording.time),
        "y": values,
        "connectgaps": False,
        "line": {"color": GRAY, "width": 1},
        "marker": {"size": 7, "line": {"color": GRAY, "width": 0.5}, **_colours(phi, full)},
        "text": [_show(part) for part in phi],
        "hovertemplate": "%{x:.4~g}: %{y:.4~g}; %{text}<extra></extra>",
    }


def _colours(phi: list[float], full: float | None) -> Trace:
    if full is None:
        return {"color": LINE}
    return {
        "color": phi,
        "colorscale": [[0, BLUE], [0.5, LINE], [1, ORANGE]],
        "cmin": -full,
        "cmax": full,
        "showscale": True,
        "colorbar": {
            "tickvals": [-full, 0, full],
            "ticktext": [_show(-full), "0", _show(full)],
            "thickness": 9,
            "outlinewidth": 0,
            "tickfont": {"color": INK},
        },
    }


def _show(phi: float) -> str:
    return f"{phi:+.2g}" if phi else "0"


def _span(values: list[float | None], words: Words) -> dict[str, str]:
    known = [value for value in values if value is not None]
    if not known:
        return {"low": words("value.not_measured"), "high": words("value.not_measured")}
    return {"low": f"{np.min(known):.4g}", "high": f"{np.max(known):.4g}"}


def _part_table(key: str, recording: Recording, words: Words) -> Table:
    """What adds up to the whole recording, in numbers that add up as shown: the rest takes what rounding leaves."""
    pattern = recording.pattern.phi if recording.pattern is not None else ()
    cells = [sum(column) for column in zip(*_cells(recording), strict=True)]
    parts = [
        *(_part("values", cells[c], words, channel) for c, channel in _named(recording)),
        *(_part("pattern", pattern[c], words, channel) for c, channel in _named(recording) if pattern),
        _part("gap", -recording.subset_gap, words),
        _part("having", recording.phi - recording.phi_having, words),
    ]
    whole = round(recording.phi * PER_UNIT)
    rest = whole - sum(step for _, step in parts)
    rows = [*parts, (words("series.rest"), rest), (words("series.whole"), whole)]
    return Table(
        caption=words("series.parts"),
        columns=(words("series.part"), words("series.phi")),
        rows=tuple((label, show_step(step)) for label, step in rows),
        name=f"{key}-parts",
    )


def _part(kind: str, phi: float, words: Words, channel: str = "") -> tuple[str, int]:
    return words(f"series.{kind}", name=channel), round(phi * PER_UNIT)


def _named(recording: Recording) -> Iterator[tuple[int, str]]:
    yield from enumerate(channel.name for channel in recording.channels)


def _segment_table(key: str, recording: Recording, words: Words) -> Table:
    segments = recording.segments
    rows: list[tuple[Cell, ...]] = []
    if segments is not None:
        for s, first in enumerate(segments.first_steps):
            cells = zip(segments.phi[s], segments.se[s], strict=True)
            rows.append((f"{recording.time[first]:g}", *(f"{phi:+.2g} ± {se:.1g}" for phi, se in cells)))
    return Table(
        caption=words("series.segments_caption"),
        columns=(words("series.from", unit=recording.time_unit), *(channel.name for channel in recording.channels)),
        rows=tuple(rows),
        name=f"{key}-segments",
    )
