"""The radiographs under a heat map of what raised and lowered the risk."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from client.patient_page.content import Explained, Image
from client.patient_page.effects import Scale
from client.patient_page.pictures import Radiograph, draw_heat_map, png_uri
from client.patient_page.waterfall import PER_UNIT, show_step
from shared_model.pages.blocks import Block, Cell, Own, Section, Table, Text
from shared_model.pages.numbers import percent
from shared_model.pages.wording import Words

_THIRDS = 3


@dataclass(frozen=True)
class ShownImage:
    """One radiograph as the template shows it; `heat` is empty where there is no attribution, and `reason` says why."""

    id: str
    name: str
    picture: str
    alt: str
    size: int
    reason: str = ""
    heat: str = ""
    heat_alt: str = ""
    caption: str = ""
    limit: str = ""
    table: Table | None = None


def describe_images(explained: Explained, pictures: Mapping[str, Radiograph], words: Words) -> Section | None:
    """The patient's radiographs side by side; None where the study has none.

    Args:
        explained: the patient.
        pictures: the radiographs that the patient has, by name.
        words: of the page.
    """
    names = [one.name for one in explained.views["common"].modalities if one.kind == "image"]
    if not names:
        return None
    lacking = [name for name in names if name not in pictures]
    shown = tuple(
        _show(f"radiograph-{i}", name, picture, explained.images.get(name, Image()), words, scale=Scale.of(explained))
        for i, (name, picture) in enumerate(pictures.items())
        if name in names
    )
    blocks: list[Block] = [Text(words("images.intro"))] if shown else []
    if shown:
        blocks.append(Own("radiographs.html", shown))
    blocks.extend(Text(words("images.lacking", name=name)) for name in lacking)
    return Section("images", words("images.title"), tuple(blocks))


def _show(key: str, name: str, picture: Radiograph, found: Image, words: Words, *, scale: Scale) -> ShownImage:
    alt = words("images.alt", name=name)
    base = ShownImage(key, name, png_uri(picture.gray), alt, picture.size)
    if not found.pixels:
        reason = words("images.unavailable", reason=found.unavailable or words("images.no_attribution"))
        return replace(base, reason=reason)
    pixels = np.asarray(found.pixels, dtype=np.float64)
    heat = draw_heat_map(pixels, full=scale.unit)
    parts = sum_ninths(pixels)
    sums = {"raising": heat.raising, "lowering": heat.lowering, "total": float(pixels.sum())}
    numbers = {key: show_step(round(value * PER_UNIT)) for key, value in sums.items()}
    base = replace(base, table=_table(name, parts, found, words))
    if not scale.has_effect(heat.raising, heat.lowering):
        return replace(base, reason=words("images.no_effect", **numbers, unit=scale.tell()["unit"]))
    strongest = words(f"images.ninth_{int(np.abs(parts).argmax())}")
    caption = words("images.caption", side=heat.side, n=found.references, seen=picture.size, **numbers)
    caption += " " + words("images.whole", phi=show_step(round(found.phi * PER_UNIT)))
    largest = float(heat.squares.flat[np.abs(heat.squares).argmax()])
    caption += " " + words("images.faint", strongest=show_step(round(largest * PER_UNIT)), unit=scale.tell()["unit"])
    caption += words("images.sharp" if picture.is_sharp else "images.as_seen", seen=picture.size)
    return replace(
        base,
        heat=png_uri(heat.colours),
        heat_alt=words("images.heat_alt", name=name, strongest=strongest, **numbers),
        caption=caption,
        limit=f"{scale.unit:.3f}",
    )


def sum_ninths(pixels: Float64[np.ndarray, "size size"]) -> Float64[np.ndarray, "3 3"]:
    """Sums over a grid of three by three parts, which add up to the whole."""
    first = [round(len(pixels) * i / _THIRDS) for i in range(_THIRDS)]
    return np.asarray(np.add.reduceat(np.add.reduceat(pixels, first, axis=0), first, axis=1))


def _table(name: str, parts: Float64[np.ndarray, "3 3"], found: Image, words: Words) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (words(f"images.ninth_{i}"), f"{value:+.4f}") for i, value in enumerate(parts.ravel().tolist())
    ]
    rows += [
        (words("images.sum"), f"{float(parts.sum()):+.4f}"),
        (words("images.gap"), f"{found.subset_gap:+.4f}"),
        (words("images.residual"), percent(found.residual, digits=4)),
    ]
    return Table(
        caption=words("images.table", name=name),
        columns=(words("images.part"), words("images.phi")),
        rows=tuple(rows),
        name=f"image-{name}",
    )
