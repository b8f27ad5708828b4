"""A run folder in a notebook."""

import tempfile
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from client.patient.run_model import open_run
from client.site import Site
from server.report.content import RunContent, read_run
from server.report.first_screen import describe_first_screen
from shared_model.errors import StudyError
from shared_model.pages.blocks import Table
from simulation.finished.explained import explain_site
from simulation.notebook.federation import FederationExplanations
from simulation.notebook.hospital import HospitalExplanations
from simulation.notebook.showing import WORDS, Shown

POOLED = "pooled"
_EXPLANATION = "explanation"  # of a round: shares, which explanations.json holds for the last


@dataclass(frozen=True)
class RunResults:
    """What a run folder says; nothing in it is about one patient.

    Attributes:
        path: of the run folder.
        content: as the report reads it.
    """

    path: Path
    content: RunContent

    @property
    def metrics(self) -> pd.DataFrame:
        """Of the test part: a row `pooled`, and one a hospital that releases its own.

        Raises:
            StudyError: the run did not come to its test, or nothing may be told of it.
        """
        test = self.content.test
        if test is None or test.pooled is None:
            why = "none" if test is None else "a suppressed one: too few patients, events or hospitals"
            raise StudyError(f"{self.path / 'metrics.json'}: expected metrics of the test part, got {why}.")
        shown = {POOLED: test.pooled, **{name: row for name, row in test.sites.items() if row is not None}}
        return pd.DataFrame.from_dict({name: asdict(row) for name, row in shown.items()}, orient="index")

    @property
    def rounds(self) -> pd.DataFrame:
        """A row a round: losses, AUC of the validation part, who was asked, answered and failed, seconds, bytes."""
        rounds = [
            {name: value for name, value in vars(one).items() if name != _EXPLANATION} for one in self.content.rounds
        ]
        return pd.DataFrame(rounds)

    @cached_property
    def explanations(self) -> FederationExplanations:
        """What the model looks at, over all hospitals.

        Raises:
            StudyError: the run has none.
        """
        if self.content.explanation is None:
            raise StudyError(
                f"{self.path / 'explanations.json'}: expected the explanation of a finished run, got none. A run with "
                "explain=none has none, and of a run over folds each fold's own folder holds one."
            )
        return FederationExplanations(self.content.explanation)

    def explain(self, data: Path | str, *, cache: Path | str | None = None) -> HospitalExplanations:
        """Values of one hospital's test patients; read where the data are, and kept there.

        Args:
            data: the hospital's data folder; its name is the hospital's.
            cache: where decoded images are kept for the next time, and where a run with a head of the hospital's own
                left it; None keeps nothing.

        Raises:
            StudyError: the run has no explanation, or its values do not add up.
            SettingsError: the run is of another study, or keeps layers that are not here.
            DataError: the data folder breaks the data contract.
        """
        folder = Path(data)
        with tempfile.TemporaryDirectory(prefix="hipfed-notebook-") as temporary:
            site = Site(folder.name, folder, Path(cache or temporary))
            model = open_run(self.path, site, device=torch.device("cpu"))
            return HospitalExplanations(explain_site(model, site, model.background))

    def __repr__(self) -> str:
        return f"RunResults({str(self.path)!r}, {self.content.state})"

    def _repr_html_(self) -> str:
        first = describe_first_screen(self.content, WORDS)
        columns = tuple(WORDS(f"notebook.{name}") for name in ("modality", "share", "share_ci"))
        rows = tuple((bar.name, bar.share, bar.beside) for bar in first.bars)
        return Shown(
            title=first.title,
            subtitle=first.subtitle,
            failure=first.failure,
            tiles=first.tiles,
            tables=(Table(WORDS("first.looks_at"), columns, rows, "shares"),) if rows else (),
            notes=(WORDS("notebook.shares_note") if rows else first.shares_note, *first.cautions),
        ).to_html()


def open_results(run: Path | str) -> RunResults:
    """A run folder, finished or not.

    Raises:
        StudyError: it is no run folder, or a file in it is not what a run writes.
    """
    return RunResults(Path(run), read_run(Path(run)))
