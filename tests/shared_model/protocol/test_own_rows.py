import json
from typing import Any

import numpy as np
import pytest

from shared_model.errors import ProtocolError
from shared_model.evaluation.metrics import summarise
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.own_rows import check_row_counts, parse_metrics, parse_shares

NAMES = ("static", "vitals")
RULE = SmallCellRule()


def own_row(**changes: Any) -> dict[str, Any]:
    entry = {"share": 0.5, "share_ci": [0.4, 0.6], "mean_abs": 0.3}
    return {"n": 40, "events": 10, "modalities": {name: dict(entry) for name in NAMES}, **changes}


def test_row_of_shares_is_read_as_it_was_written() -> None:
    assert parse_shares(json.dumps(own_row()), RULE, NAMES) == own_row()


def test_row_of_a_constant_model_has_no_shares() -> None:
    row = own_row()
    row["modalities"]["static"] |= {"share": None, "share_ci": [None, None]}
    assert parse_shares(json.dumps(row), RULE, NAMES) == row


@pytest.mark.parametrize("row", [{"suppressed": True}, own_row(n=9, events=1), own_row(events=4)])
def test_row_that_must_not_be_shown_is_hidden(row: dict[str, Any]) -> None:
    assert parse_shares(json.dumps(row), RULE, NAMES) == {"suppressed": True}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        json.dumps(own_row(extra=1)),
        json.dumps(own_row(n=-1)),
        json.dumps(own_row(n="40")),
        json.dumps(own_row(events=41)),
        json.dumps(own_row(modalities={"static": own_row()["modalities"]["static"]})),
        json.dumps(own_row()).replace('"share": 0.5', '"share": 1.5'),
        json.dumps(own_row()).replace('"share": 0.5', '"share": NaN'),
        json.dumps(own_row()).replace("[0.4, 0.6]", "[0.4]"),
        json.dumps(own_row()).replace('"mean_abs": 0.3', '"mean_abs": Infinity'),
    ],
)
def test_row_that_is_no_row_of_shares_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="own shares"):
        parse_shares(text, RULE, NAMES)


@pytest.mark.parametrize(
    ("row", "arrays"),
    [
        (own_row(n=41), {"n": np.array([40.0]), "events": np.array([own_row()["events"]])}),
        (own_row(), {"n": np.array([float(own_row()["n"])]), "events": np.array([own_row()["events"] + 1.0])}),
        (own_row(), {}),
    ],
)
def test_row_whose_counts_are_not_those_of_its_sums_is_refused(
    row: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    with pytest.raises(ProtocolError, match="own row: expected the counts of the sums"):
        check_row_counts(row, arrays)


@pytest.mark.parametrize(
    "change",
    [{"auc": 7.0}, {"brier": -0.1}, {"auc": float("inf")}, {"n": -1}, {"events": 1000}, {"log_loss": -1.0}],
    ids=str,
)
def test_metrics_that_cannot_be_are_refused(change: dict[str, float]) -> None:
    scores = ScoreSums.from_scores(np.linspace(-2, 2, 60), (np.arange(60) % 3 == 0).astype(np.int8))
    row = summarise(scores).to_dict()
    assert parse_metrics(json.dumps(row), RULE) == row

    with pytest.raises(ProtocolError, match="own row: expected the agreed metrics"):
        parse_metrics(json.dumps(row | change).replace("Infinity", "1e400"), RULE)


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 3, "3", '{"n": NaN}'])
def test_text_that_is_no_row_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="own row"):
        parse_metrics(text, RULE)
    with pytest.raises(ProtocolError, match="own shares"):
        parse_shares(text, RULE, NAMES)
