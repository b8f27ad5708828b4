"""An object's display in Jupyter: a heading, numbers, tables, and what must be said beside them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from server.report.page import WORDS_FILES
from shared_model.pages.blocks import Table, Tile
from shared_model.pages.document import page_environment
from shared_model.pages.wording import Words

Of = Literal["modalities", "features"]

_HERE = Path(__file__).parent
WORDS = Words(*WORDS_FILES, _HERE / "english.toml")


def check_of(of: str) -> None:
    """Raise ValueError for what no explanation is of."""
    if of not in get_args(Of):
        raise ValueError(f"of: expected modalities or features, got {of!r}.")


@dataclass(frozen=True)
class Shown:
    """What stands in the notebook.

    Attributes:
        title: heading.
        subtitle: the line below it.
        failure: why there is no more; "" if nothing failed.
        tiles: numbers.
        tables: below them.
        notes: sentences that belong to the numbers.
    """

    title: str
    subtitle: str
    failure: str = ""
    tiles: tuple[Tile, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()

    def to_html(self) -> str:
        """HTML without scripts or styles of its own, so that it follows the notebook's theme; all text is escaped."""
        return page_environment(_HERE / "templates").get_template("shown.html").render(shown=self, words=WORDS)
