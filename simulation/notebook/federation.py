"""The explanation of all hospitals together, as tables and for shap's bar plot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from server.report.shares import tell_interval_meaning, tell_range, tell_share
from server.run_folder.explanation import PRESENCE, Explanation, FeatureEntry
from server.run_folder.records import Ends
from shared_model.errors import StudyError
from shared_model.pages.blocks import Cell, Table
from simulation.notebook.showing import WORDS, Of, Shown, check_of

if TYPE_CHECKING:
    import shap

TOP = 10  # features that an object shows of itself; the table holds all


@dataclass(frozen=True)
class FederationExplanations:
    """Sums over the patients of all hospitals: no patient's value is in them.

    Attributes:
        content: explanations.json as the report reads it.
    """

    content: Explanation

    def to_frame(self, of: Of = "modalities") -> pd.DataFrame:
        """A row a modality, or a row a feature; NaN is what may not be told or is not defined.

        Args:
            of: modalities have share, its interval, and the spread between hospitals; features mean |phi| and mean phi
                over the patients who have the modality (`presence`: over all; levels and counts: those whose group is
                shown), log odds, and `suppressed`.

        Raises:
            StudyError: nothing may be told of this run, or nothing of features.
        """
        self._must_be_shown(of)
        return pd.DataFrame(list(self._modality_rows() if of == "modalities" else self._feature_rows()))

    def to_shap(self, of: Of = "modalities") -> shap.Explanation:
        """Mean |phi| (log odds) for `shap.plots.bar`.

        Of modalities it is what `.abs.mean(0)` of all patients' values would be; of features the mean is over the
        patients who have the modality (`presence`: over all), so it is larger than that where some lack it.

        Nothing here says which patient had which value, so that beeswarm and waterfall need a hospital's own
        (`HospitalExplanations`). Suppressed features are left out: `to_frame` names them.

        Args:
            of: modalities or features.

        Raises:
            StudyError: nothing may be told of this run, or nothing of features.
        """
        frame = self.to_frame(of).dropna(subset="mean_abs")
        names = frame["modality"] if of == "modalities" else frame["modality"] + ": " + frame["feature"]
        import shap  # noqa: PLC0415 - slow, and an extra

        means = shap.Explanation(values=frame[["mean_abs"]].to_numpy(dtype=np.float64).T, feature_names=names.tolist())
        return means.abs.mean(0)  # of one row: the same numbers, and shap calls them what they are

    def __repr__(self) -> str:
        return f"FederationExplanations({self._heading()})"

    def _repr_html_(self) -> str:
        if self.content.suppressed:
            return Shown(self._heading(), WORDS("notebook.suppressed")).to_html()
        tables = [self._modality_table()]
        notes = [WORDS("notebook.shares_note"), tell_interval_meaning(self.content, WORDS)]
        if any(self.content.features.values()):
            features = self.to_frame("features")
            tables.append(self._feature_table(features))
            if n_hidden := int(features.loc[features["feature"] != PRESENCE, "suppressed"].sum()):
                notes.append(WORDS("notebook.hidden", n=n_hidden))
        part, background = self.content.part, self.content.background_id[:12]
        subtitle = WORDS("notebook.federation_part", part=part, background=background)
        return Shown(self._heading(), subtitle, tables=tuple(tables), notes=tuple(notes)).to_html()

    def _heading(self) -> str:
        n = self.content.n
        return WORDS("notebook.federation_uncounted") if n is None else WORDS("notebook.federation", n=n)

    def _must_be_shown(self, of: Of) -> None:
        check_of(of)
        if self.content.suppressed:
            raise StudyError("explanations.json: expected shares, got a suppressed explanation: too few patients.")
        if of == "features" and not any(self.content.features.values()):
            raise StudyError(
                "explanations.json: expected features, got none that may be told. Run the study with explain=features; "
                "a study of few patients or hospitals shows none."
            )

    def _modality_rows(self) -> Iterator[dict[str, object]]:
        for name, entry in self.content.by_share():
            yield {
                "modality": name,
                "share": entry.share,
                **_ends("share", entry.share_ci),
                "mean_local_share": entry.mean_local_share,
                "mean_abs": entry.mean_abs,
                **_ends("mean_abs", entry.mean_abs_ci),
                "se_background": entry.se_background,
                "n_present": entry.n_present,
                "tau": entry.tau,
                "i2": entry.i2,
                **_ends("prediction", entry.prediction_interval),
            }

    def _feature_rows(self) -> Iterator[dict[str, object]]:
        for modality, _ in self.content.by_share():
            for entry in self.content.features.get(modality) or ():
                yield {"modality": modality, **_feature_row(entry)}

    def _modality_table(self) -> Table:
        rows = tuple(
            (name, tell_share(entry, WORDS), tell_range(entry, WORDS), entry.mean_abs, entry.n_present)
            for name, entry in self.content.by_share()
        )
        columns = ("modality", "share", "share_ci", "mean_abs", "having")
        return _table("modalities", WORDS("notebook.modalities"), columns, rows)

    def _feature_table(self, features: pd.DataFrame) -> Table:
        top = features.dropna(subset="mean_abs").nlargest(TOP, "mean_abs")
        rows = tuple(
            (f"{row['modality']}: {row['feature']}", row["unit"], row["mean_abs"], row["mean_phi"])
            for row in top.to_dict("records")
        )
        columns = ("feature", "unit", "mean_abs", "mean_phi")
        return _table("features", WORDS("notebook.features", n=len(top)), columns, rows)


def _feature_row(entry: FeatureEntry) -> dict[str, object]:
    return {
        "feature": entry.name,
        "unit": entry.unit,
        "n": entry.n,
        "mean_abs": entry.mean_abs,
        **_ends("mean_abs", entry.mean_abs_ci),
        "mean_phi": entry.mean_phi,
        "se_sampling": entry.se_sampling,
        "correlation": entry.correlation,
        "suppressed": entry.suppressed,
    }


def _ends(name: str, ends: Ends) -> dict[str, float | None]:
    low, high = ends or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _table(name: str, caption: str, columns: tuple[str, ...], rows: tuple[tuple[Cell, ...], ...]) -> Table:
    headings = tuple(WORDS(f"notebook.{column}") for column in columns)
    return Table(caption, headings, rows, name)
