"""A hospital's own rows: its metrics and its shares as JSON, read with care by whoever gets them."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared_model.errors import ProtocolError
from shared_model.evaluation.metrics import Metrics
from shared_model.privacy.suppression import SmallCellRule, suppressed_row
from shared_model.protocol.quantities import MAX_PATIENTS, Arrays

Row = dict[str, Any]

_METRICS = TypeAdapter(Metrics)
_FRACTIONS = ("auc", "auc_within", "auprc", "brier", "ece")


class _ModalityRow(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    share: float | None = Field(ge=0, le=1)
    share_ci: list[float | None] = Field(min_length=2, max_length=2)
    mean_abs: float = Field(ge=0)


class _SharesRow(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    n: int = Field(ge=0, le=MAX_PATIENTS)
    events: int = Field(ge=0, le=MAX_PATIENTS)
    modalities: dict[str, _ModalityRow]


def parse_metrics(text: str, rule: SmallCellRule) -> Row:
    """A hospital's own metrics, or the suppressed row where they must not be shown.

    Raises:
        ProtocolError: not a row of metrics.
    """
    try:
        row = load_row(text)
        if row == suppressed_row():
            return row
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        metrics = _METRICS.validate_python(fields)
        if set(row) != set(metrics.to_dict()) or row["n"] > MAX_PATIENTS:
            raise ValueError("row")  # noqa: TRY301 - handled with pydantic's own
        allowed = rule.may_release(n=metrics.n, events=metrics.events)
        _check_ranges(metrics)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ProtocolError("own row: expected the agreed metrics, got something else.") from error
    return dict(metrics.to_dict()) if allowed else suppressed_row()


def parse_shares(text: str, rule: SmallCellRule, modalities: tuple[str, ...]) -> Row:
    """A hospital's own shares, or the suppressed row where they must not be shown.

    Raises:
        ProtocolError: not a row of shares.
    """
    try:
        content = load_row(text)
        if content == suppressed_row():
            return content
        row = _SharesRow.model_validate(content)
        if set(row.modalities) != set(modalities):
            raise ValueError("modalities")  # noqa: TRY301 - handled with pydantic's own
        allowed = rule.may_release(n=row.n, events=row.events)
    except (ValidationError, ValueError, RecursionError) as error:
        raise ProtocolError("own shares: expected the agreed numbers, got something else.") from error
    return row.model_dump() if allowed else suppressed_row()


def check_row_counts(row: Mapping[str, Any], arrays: Arrays, *, prefix: str = "") -> None:
    """A released row tells the counts of the sums beside it: what is hidden with it is chosen by these counts.

    Args:
        row: that a hospital releases.
        arrays: of the same answer.
        prefix: of the counts' names.

    Raises:
        ProtocolError: other counts, or none.
    """
    if row == suppressed_row():
        return
    for name in ("n", "events"):
        counts = np.asarray(arrays.get(f"{prefix}{name}", ())).ravel()
        if counts.dtype.kind not in "fiu" or not len(counts) or float(counts[0]) != row[name]:
            raise ProtocolError("own row: expected the counts of the sums beside it, got others.")


def load_row(text: str) -> Row:
    """A hospital's row from JSON.

    Raises:
        ValueError: not a JSON object, or with NaN or infinity, which JSON does not have.
        RecursionError: it is nested without end.
    """
    row = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    if not isinstance(row, dict):
        raise ValueError("row")  # noqa: TRY004 - one kind of error for all that is wrong with a row
    return row


def _check_ranges(metrics: Metrics) -> None:
    """Metrics can have the values that they are told to have.

    Raises:
        ValueError: one cannot.
    """
    for name in _FRACTIONS:
        value = getattr(metrics, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(name)
    losses = (metrics.log_loss, metrics.n, metrics.events, metrics.n - metrics.events)
    if any(value is not None and value < 0 for value in losses):
        raise ValueError("losses")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
