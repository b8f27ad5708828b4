"""Modalities of kinds that other packages add: the section that the package writes, if it writes one.

Their effect as a whole stands on the page in any case. A package names its section by an entry point of the group
`hipfed.page_parts`: its name is the kind, its object takes the modality's effect and the page's words.
"""

from collections.abc import Callable

from client.patient_page.content import Explained, ModalityEffect
from shared_model import extensions
from shared_model.pages.blocks import Section
from shared_model.pages.wording import Words

PagePart = Callable[[ModalityEffect, Words], Section]


def describe_further(explained: Explained, words: Words) -> tuple[Section, ...]:
    """A section for each modality whose package has one."""
    parts = extensions.entry_points_of(extensions.PAGE_PARTS)
    found: list[Section] = []
    for modality in explained.views["common"].modalities:
        if modality.kind in parts:
            part: PagePart = extensions.load(extensions.PAGE_PARTS, modality.kind)
            found.append(part(modality, words))
    return tuple(found)
