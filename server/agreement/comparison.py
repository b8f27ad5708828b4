"""Agreement of clinicians and model on the modalities and features that are important.

The run's order is by `share` for modalities and by `mean_abs` for features, over all modalities together. Why the three
numbers differ: tau-b sees only the items that the expert ranked; rank-biased overlap and the overlap of the first K set
them against the run's whole order, so an expert who ranks three minor features in the run's order has tau-b 1 and
little overlap.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from rich.console import Console
from scipy.stats import rankdata

from server.agreement.expert_table import ExpertTable, read_expert_table
from server.agreement.rank_agreement import PERSISTENCE, Overlap, kendall_w, rank_scores, tau_b
from server.run_folder.explained_items import ExplainedItem, ExplainedItems, read_explained_items
from shared_model.errors import SettingsError, StudyError
from shared_model.pages.screen_table import print_table
from shared_model.process.files import replace_file
from shared_model.shapley.explanation_quantities import number_or_none
from shared_model.shapley.shares import LEVEL

KINDS = ("modality", "feature")
FEWEST, DRAWS, SEED = 3, 2000, 0
CI_HEADING = f"{100 * LEVEL:.0f} % CI"

DEFINITIONS = {
    "modality": "ordered by share, see explanations.json",
    "feature": "ordered by mean_abs, over all modalities together; each over the patients who have its modality",
    "tau_b": "Kendall's tau-b over the items that the expert ranked; -1 reversed, 1 same order",
    "rbo": f"extrapolated rank-biased overlap of the expert's order with the run's whole order, p = {PERSISTENCE}; "
    "an item that the expert did not rank counts as less important than those ranked",
    "top_overlap": "part of the k most important items that both share; k is lowered to what the expert ranked, and to "
    "one less than the run has",
    "chance": "mean over all orders of the run's items",
    "ci": "percentile interval for patients sampled anew, the model and the expert's ranking kept: every importance is "
    "drawn from a normal distribution with the spread of its interval in explanations.json, independent of the others",
    "mean_rank": "the experts' mean rank, over items that all of them ranked",
    "kendall_w": "Kendall's W between the experts over the same items, corrected for ties; 0 none, 1 same order",
    "rank": "1 is the most important; tied items share the lowest of their ranks",
}


def compare_with_experts(run: Path, expert: Path, *, top: int) -> dict[str, Any]:
    """Agreement of each expert, and of their mean rank, with a run's explanation, and of the experts with each other.

    Args:
        run: a run folder.
        expert: the experts' table.
        top: K of the overlap of the first K, from 1.

    Raises:
        DataError: the table breaks its contract.
        SettingsError: top is below 1.
        StudyError: there is no explanation to compare with, or no kind with enough items.
    """
    if top < 1:
        raise SettingsError(f"--top at agreement: expected at least 1, got {top}. Raise it.")
    explained = read_explained_items(run)
    table = read_expert_table(expert, names=explained.names)
    notes, kinds = _describe_left_out(explained, table), {}
    for kind in KINDS:
        scores, too_few = _select_scores(kind, explained, table)
        notes += too_few
        if scores:
            kinds[kind], missing = _describe_kind(kind, RunRanking.of(kind, explained), scores, top=top)
            notes += missing
    if not kinds:
        raise StudyError(
            f"items at {expert}: expected at least {FEWEST} of a kind that the run explains, got fewer. "
            + " ".join(notes)
        )
    return {
        "explanation": dict(explained.about),
        "scale": table.scale,
        "settings": {"p": PERSISTENCE, "top": top, "draws": DRAWS, "seed": SEED, "level": LEVEL},
        "definitions": DEFINITIONS,
        "kinds": kinds,
        "notes": notes,
    }


def _describe_left_out(explained: ExplainedItems, table: ExpertTable) -> list[str]:
    """Items that were ranked but cannot be compared, by reason."""
    ranked = sorted({item for scores in table.scores.values() for item in scores})
    left_out = [item for item in ranked if item not in explained.importance]
    hidden = [str(item) for item in left_out if item in explained.suppressed]
    absent = [str(item) for item in left_out if item not in explained.suppressed]
    notes = []
    if hidden:
        notes.append(f"left out, suppressed in the run (small-cell rule): {', '.join(hidden)}.")
    if absent:
        notes.append(f"left out, not explained in the run: {', '.join(absent)}.")
    return notes


@dataclass(frozen=True)
class RunRanking:
    """A run's order of one kind of item.

    Attributes:
        items: of the kind, that may be shown.
        ranks: of the items.
        draws: ranks with patients sampled anew; None if the run gives no interval for an item.
    """

    items: tuple[ExplainedItem, ...]
    ranks: Float64[np.ndarray, "item"]
    draws: Float64[np.ndarray, "draw item"] | None

    @classmethod
    def of(cls, kind: str, explained: ExplainedItems) -> RunRanking:
        """The order that an explanation gives."""
        items = tuple(item for item in explained.importance if item.kind == kind)
        importance = np.array([explained.importance[item] for item in items], dtype=np.float64)
        spread = np.array([explained.spread[item] for item in items], dtype=np.float64)
        draws = None
        if np.isfinite(spread).all():
            draws = rank_scores(draw_importance(importance, spread, rng=np.random.default_rng(SEED)))
        return cls(items, rank_scores(importance), draws)


def draw_importance(
    importance: Float64[np.ndarray, "item"], spread: Float64[np.ndarray, "item"], *, rng: np.random.Generator
) -> Float64[np.ndarray, "draw item"]:
    """Importances with patients sampled anew: normal, independent of each other, cut at 0.

    Args:
        importance: of each item.
        spread: its standard error.
        rng: of the draws.
    """
    return np.maximum(rng.normal(importance, spread, (DRAWS, len(importance))), 0.0)


def _select_scores(
    kind: str, explained: ExplainedItems, table: ExpertTable
) -> tuple[dict[str, Mapping[ExplainedItem, float]], list[str]]:
    """Of each expert who ranked enough items of a kind, the scores of those that the run explains; and notes."""
    chosen: dict[str, Mapping[ExplainedItem, float]] = {}
    notes = []
    for expert, scores in table.scores.items():
        given = {item: score for item, score in scores.items() if item.kind == kind}
        usable = {item: score for item, score in given.items() if item in explained.importance}
        if len(usable) >= FEWEST:
            chosen[expert] = usable
        elif given:
            notes.append(f"{kind}, {expert}: left out, {len(usable)} of at least {FEWEST} items that the run explains.")
    return chosen, notes


def _describe_kind(
    kind: str, run: RunRanking, scores: Mapping[str, Mapping[ExplainedItem, float]], *, top: int
) -> tuple[dict[str, Any], list[str]]:
    """What the report says of one kind; and notes."""
    rows = np.array([[given.get(item, np.nan) for item in run.items] for given in scores.values()], dtype=np.float64)
    notes = []
    if run.draws is None:
        notes.append(f"{kind}: no confidence intervals, since the run gives no interval for some of the items.")
    everyone = np.isfinite(rows).all(axis=0)
    n_common = int(everyone.sum())
    mean_rank, between = None, None
    if len(rows) > 1 and n_common >= FEWEST:
        mean = np.full(len(run.items), np.nan)
        mean[everyone] = -np.asarray(rankdata(-rows[:, everyone], axis=1)).mean(axis=0)
        mean_rank = _describe_agreement(mean, run, top=top)
        w = number_or_none(kendall_w(rows[:, everyone]))
        between = {"value": w, "experts": len(rows), "items": n_common}
    elif len(rows) > 1:
        notes.append(
            f"{kind}, mean rank and Kendall's W: left out, {n_common} of at least {FEWEST} items that all rank."
        )
    entry = {
        "items": len(run.items),
        "experts": {name: _describe_agreement(row, run, top=top) for name, row in zip(scores, rows, strict=True)},
        "mean_rank": mean_rank,
        "kendall_w": between,
    }
    return entry, notes


def _describe_agreement(scores: Float64[np.ndarray, "item"], run: RunRanking, *, top: int) -> dict[str, Any]:
    """One expert's scores (NaN: not ranked) against the run's order."""
    ranks = rank_scores(scores)
    overlap = Overlap.of(ranks, run.ranks)
    chance = overlap.by_chance(len(run.items))
    k = min(top, overlap.shorter, len(run.items) - 1)
    drawn = _measure(ranks, run.draws, k=k) if run.draws is not None else {}
    by_chance = {"tau_b": 0.0, "rbo": float(chance.rank_biased()), "top_overlap": float(chance.at_top(k))}
    entry: dict[str, Any] = {"ranked": overlap.shorter, "k": k}
    for name, value in _measure(ranks, run.ranks, k=k).items():
        ci = _percentile_interval(drawn.get(name))
        entry[name] = {"value": number_or_none(float(value)), "ci": ci, "chance": by_chance[name]}
    entry["ranks"] = [
        {"modality": item.modality, "feature": item.feature, "expert": number_or_none(rank), "run": float(place)}
        for item, rank, place in zip(run.items, ranks, run.ranks, strict=True)
    ]
    return entry


def _measure(
    expert: Float64[np.ndarray, "item"], run: Float64[np.ndarray, "*draws item"], *, k: int
) -> dict[str, Float64[np.ndarray, "*draws"]]:
    overlap = Overlap.of(expert, run)
    return {"tau_b": tau_b(expert, run), "rbo": overlap.rank_biased(), "top_overlap": overlap.at_top(k)}


def _percentile_interval(draws: Float64[np.ndarray, "draw"] | None) -> list[float] | None:
    """None where a draw has no value: tau-b of items that are all tied."""
    if draws is None or not np.isfinite(draws).all():
        return None
    tail = 50 * (1 - LEVEL)
    return [float(end) for end in np.percentile(draws, [tail, 100 - tail])]


def write_agreement(report: Mapping[str, Any], out: Path, *, run: Path, expert: Path) -> None:
    """Write the report as JSON, whole or not at all.

    Raises:
        StudyError: it would replace what it was made from, or cannot be written.
    """
    if out.resolve() == expert.resolve() or out.resolve().is_relative_to(run.resolve()):
        raise StudyError(f"--out at {out}: expected a file of its own outside the run, got another. Name one.")
    try:
        replace_file(out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise StudyError(f"--out at {out}: expected a file to write, got: {error.strerror}. Name another.") from error


def print_agreement(report: Mapping[str, Any], console: Console) -> None:
    """The statistics of each expert as a table, what the interval covers, and what was left out."""
    rows: list[tuple[str, ...]] = []
    for kind, entry in report["kinds"].items():
        for name, row in entry["experts"].items():
            rows += _list_rows(kind, name, row, n_items=entry["items"])
        if entry["mean_rank"]:
            rows += _list_rows(kind, "mean rank", entry["mean_rank"], n_items=entry["items"])
        between = entry["kendall_w"]
        if between:
            ranked = f"{between['items']} of {entry['items']}"
            rows.append((kind, f"{between['experts']} experts", ranked, "Kendall's W", _number(between["value"])))
    print_table(console, ("", "expert", "ranked", "agreement", "value", CI_HEADING, "by chance"), rows)
    for heading, key in (("tau-b", "tau_b"), ("RBO", "rbo"), (CI_HEADING, "ci"), ("by chance", "chance")):
        console.print(f"{heading}: {report['definitions'][key]}.", markup=False, highlight=False)
    for note in report["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False)


def _list_rows(kind: str, name: str, row: Mapping[str, Any], *, n_items: int) -> Iterator[tuple[str, ...]]:
    lead = (kind, name, f"{row['ranked']} of {n_items}")
    for key, label in (("tau_b", "tau-b"), ("rbo", "RBO"), ("top_overlap", f"top {row['k']}")):
        cell = row[key]
        ci = " to ".join(_number(end) for end in cell["ci"] or ()) or "-"
        yield (*lead, label, _number(cell["value"]), ci, _number(cell["chance"]))
        lead = ("", "", "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
