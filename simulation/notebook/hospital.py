"""Shapley values of one hospital's test patients, as tables and for shap's plots. They stay where the data are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from client.patient.explanation import effect_sizes
from client.worker.explain import sampling_seeds
from shared_model.modalities.feature import Feature
from shared_model.pages.blocks import Table, Tile
from shared_model.pages.numbers import percent
from shared_model.shapley.feature_values import FeatureTable, attribute_features
from shared_model.shapley.features import list_features
from shared_model.shapley.game import FusionGame
from shared_model.shapley.shares import share_of_means
from simulation.finished.explained import ExplainedSite
from simulation.notebook.conversion import feature_explanation, feature_frame, modality_explanation, modality_frame
from simulation.notebook.showing import WORDS, Of, Shown, check_of

if TYPE_CHECKING:
    import shap


@dataclass(frozen=True)
class HospitalExplanations:
    """Values against the run's common background: those whose sums the hospital gave to the run.

    That holds as long as the data folder has the same patients: with others the run's split is another, and its test
    part may hold patients whom training saw.

    Attributes:
        explained: the hospital under the finished model.
    """

    explained: ExplainedSite

    def to_frame(self, of: Of = "modalities") -> pd.DataFrame:
        """A row a patient and modality, or a patient and feature; phi in log odds.

        Args:
            of: modalities are exact; features are Owen values, sampled, with their standard error.
        """
        check_of(of)
        ids = self.explained.patient_ids
        if of == "modalities":
            return modality_frame(self.explained.found, patient_ids=ids)
        return feature_frame(self._tables, features=self._features, patient_ids=ids)

    def to_shap(self, of: Of = "modalities") -> shap.Explanation:
        """For shap's bar, beeswarm, scatter and waterfall plots: a row a patient; rows sum to the predicted logit.

        Args:
            of: of modalities, data is 1 where the patient has it; of features, it is their value in its unit.
        """
        check_of(of)
        found = self.explained.found
        if of == "modalities":
            return modality_explanation(found)
        return feature_explanation(found, self._tables, features=self._features, patients=self.explained.patients)

    def __len__(self) -> int:
        return len(self.explained.rows)

    def __repr__(self) -> str:
        return f"HospitalExplanations({self._heading()})"

    def _repr_html_(self) -> str:
        found = self.explained.found
        size = effect_sizes(found.phi)
        shares = share_of_means(len(self), size.sum(axis=0), size.T @ size)
        rows = tuple(
            (
                name,
                percent(float(shares.share[i]) if size.any() else None),
                float(size[:, i].mean()),
                float(found.phi[:, i].mean()),
                int(found.present[:, i].sum()),
            )
            for i, name in sorted(enumerate(found.modalities), key=lambda item: -shares.share[item[0]])
        )
        headings = ("modality", "share", "mean_abs", "mean_phi", "having")
        columns = tuple(WORDS(f"notebook.{heading}") for heading in headings)
        return Shown(
            title=self._heading(),
            subtitle=WORDS("notebook.hospital_part", background=found.background_id[:12]),
            tiles=(
                Tile(WORDS("notebook.risk"), percent(float(found.probability.mean()))),
                Tile(WORDS("notebook.base"), percent(found.base_probability)),
            ),
            tables=(Table(WORDS("notebook.modalities"), columns, rows, "modalities"),),
            notes=(WORDS("notebook.shares_note"), WORDS("notebook.hospital_note")),
        ).to_html()

    def _heading(self) -> str:
        return WORDS("notebook.hospital", n=len(self), site=self.explained.site.name)

    @cached_property
    def _features(self) -> Mapping[str, tuple[Feature, ...]]:
        run = self.explained.run
        return list_features(run.model, self.explained.site.schema, run.preprocessing)

    @cached_property
    def _tables(self) -> dict[str, FeatureTable]:
        """Sampled once, as it takes the most time; with the run's seeds, so that they are the run's values."""
        one = self.explained
        return attribute_features(
            FusionGame(one.run.model),
            one.patients,
            one.run.background,
            features=self._features,
            seeds=sampling_seeds(one.site, one.run.settings, one.rows),
        )
