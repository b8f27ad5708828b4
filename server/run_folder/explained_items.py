"""Importance of modalities and features, item by item, read from explanations.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import norm

from server.run_folder.explanation import Explanation
from server.run_folder.folder import CONFIG
from server.run_folder.reading import parse_config, parse_explanation, read_record
from server.run_folder.records import Ends
from shared_model.errors import StudyError
from shared_model.shapley.shares import LEVEL

EXPLANATIONS = "explanations.json"


@dataclass(frozen=True, order=True)
class ExplainedItem:
    """What can be important: a modality (`feature` is empty) or a feature inside one."""

    modality: str
    feature: str = ""

    @property
    def kind(self) -> str:
        """Modality or feature."""
        return "feature" if self.feature else "modality"

    def __str__(self) -> str:
        return f"{self.modality}: {self.feature}" if self.feature else self.modality


@dataclass(frozen=True)
class ExplainedItems:
    """What a run says of the importance of its items.

    Attributes:
        importance: of every item that may be shown.
        spread: standard error of importance; NaN where the run gives no interval.
        suppressed: features that the small-cell rule hides.
        names: what an expert may name, as `read_expert_table` takes it; a modality of the study that the run leaves out
            is among them.
        about: which explanation this is.
    """

    importance: Mapping[ExplainedItem, float]
    spread: Mapping[ExplainedItem, float]
    suppressed: frozenset[ExplainedItem]
    names: Mapping[str, frozenset[str] | None]
    about: Mapping[str, Any]


def read_explained_items(run: Path) -> ExplainedItems:
    """Importance of modalities and features in explanations.json.

    Raises:
        StudyError: it is not there, suppressed, without shares, or not one of this version.
    """
    path = run / EXPLANATIONS
    if not path.is_file():
        raise StudyError(f"{path}: expected a run that was explained, got none. Give the folder of a finished run.")
    explanation = read_record(path, parse_explanation)
    config = read_record(run / CONFIG, parse_config)
    if explanation is None or not explanation.modalities:
        if explanation is not None and explanation.suppressed:
            raise StudyError(
                f"explanation at {path}: expected one that may be shown, got a suppressed one. "
                "Explain more patients; the small-cell rule hides this one."
            )
        raise StudyError(f"{path}: expected the importance of modalities, got none. Run the study again.")
    return _collect_items(explanation, config.schema_.modalities if config else ())


def _collect_items(explanation: Explanation, study: tuple[str, ...]) -> ExplainedItems:
    # Not `share_ci`: with other training patients shares differ by more.
    entries = {ExplainedItem(name): (row.share, row.share_range) for name, row in explanation.modalities.items()}
    shown, suppressed = {}, set()
    for modality, rows in explanation.features.items():
        for row in (rows or ())[:-1]:  # the last is `presence`, which is no feature
            item = ExplainedItem(modality, row.name)
            if row.suppressed:
                suppressed.add(item)
            else:
                shown[item] = (row.mean_abs, row.mean_abs_ci)
    entries |= shown
    if undefined := [str(item) for item, (value, _) in entries.items() if value is None]:
        raise StudyError(
            f"importance of {', '.join(undefined)} at {EXPLANATIONS}: expected a number, got null. "
            "Compare with a model whose predictions differ between patients."
        )
    known = {item.modality: frozenset[str]() for item in entries}
    for item in (*shown, *suppressed):
        known[item.modality] |= {item.feature}
    importance = {item: value for item, (value, _) in entries.items() if value is not None}
    return ExplainedItems(
        importance=importance,
        spread={item: _standard_error(importance[item], ends) for item, (_, ends) in entries.items()},
        suppressed=frozenset(suppressed),
        names=dict.fromkeys(study) | (known if explanation.features else dict.fromkeys(known)),
        about={key: getattr(explanation, key) for key in ("model_hash", "background_id", "part", "n", "events")},
    )


def _standard_error(value: float, interval: Ends) -> float:
    """Of an interval; its longer side, since one end may have been cut at 0 or 1, or the share lies off its middle."""
    if interval is None or interval[0] is None or interval[1] is None:
        return float("nan")
    return max(interval[1] - value, value - interval[0], 0.0) / float(norm.ppf((1 + LEVEL) / 2))
