"""The figures of a comparison, as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from shared_model.evaluation.metrics import calibration_curve, decision_curve, summarise
from simulation.compare.arms import FEDERATED, POOLED
from simulation.compare.depth import draw_depth
from simulation.compare.predictions import score
from simulation.compare.style import BLUE, DPI, GRAY, GREEN, ORANGE, VERMILION, plain
from simulation.compare.tables import Finished

mpl.use("Agg")

CURVES = {FEDERATED: BLUE, POOLED: ORANGE, "regression": GREEN, "points": VERMILION}


def draw_figures(
    folder: Path,
    arms: Sequence[Finished],
    *,
    metrics: pd.DataFrame,
    differences: pd.DataFrame,
    evidence: pd.DataFrame,
    depth: pd.DataFrame,
) -> list[str]:
    """Write all figures that the tables allow.

    Args:
        folder: made if it does not exist.
        arms: with their predictions.
        metrics: from `metrics_table`.
        differences: from `differences_table`.
        evidence: from `evidence_table`.
        depth: from `gradient_norms`.

    Returns:
        File names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"auc.png": _forest(metrics, "auc", "auc_low", "auc_high", label="AUC (95 % interval)")}
    shown = differences.dropna(subset=["difference"])
    if len(shown):
        drawn["differences.png"] = _forest(
            shown,
            "difference",
            "low",
            "high",
            label="AUC less that of the arm compared with (models as they are)",
            line=0.0,
        )
    curves = {one.arm.name: score(one.mean) for one in arms if one.arm.name in CURVES}
    drawn["calibration.png"] = _calibration(curves)
    drawn["decision.png"] = _decision(curves)
    if len(evidence):
        drawn["shares.png"] = _shares(evidence)
    if len(depth):
        drawn["depth.png"] = draw_depth(depth)
    for name, figure in drawn.items():
        figure.savefig(folder / name, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    return sorted(drawn)


def _forest(table: pd.DataFrame, value: str, low: str, high: str, *, label: str, line: float | None = None) -> Figure:
    """One row an arm, from top to bottom, groups apart."""
    figure = Figure(figsize=(7.5, 0.8 + 0.3 * (len(table) + table["group"].nunique())))
    axes = figure.add_subplot()
    y, ticks, names, before = 0.0, [], [], ""
    for row in table.to_dict("records"):
        if row["group"] != before:
            y, before = y - 0.7, row["group"]
        colour = BLUE if row["arm"] == FEDERATED else GRAY
        if row[value] is not None and not np.isnan(row[value]):
            axes.plot([row[low], row[high]], [y, y], color=colour, linewidth=1.5)
            axes.plot(row[value], y, "o", color=colour, markersize=5)
        ticks.append(y)
        names.append(row["arm"])
        y -= 1
    if line is None:
        reference = table.loc[table["arm"] == FEDERATED, value]
        line = float(reference.iloc[0]) if len(reference) else None
    if line is not None:
        axes.axvline(line, color=GRAY, linewidth=0.8, linestyle=":")
    axes.set_yticks(ticks, names)
    axes.set_xlabel(label)
    plain(axes)
    return figure


def _calibration(curves: dict[str, Any]) -> Figure:
    """Observed against predicted risk in tenths of the patients."""
    figure = Figure(figsize=(4.8, 4.5))
    axes = figure.add_subplot()
    top = 0.0
    for name, sums in curves.items():
        curve = calibration_curve(sums)
        axes.plot(
            curve["predicted"], curve["observed"], "o-", color=CURVES[name], markersize=4, label=_slope(name, sums)
        )
        top = max([top, *curve["predicted"], *curve["observed"]])
    axes.plot([0, top], [0, top], color=GRAY, linewidth=0.8, linestyle=":")
    axes.set_xlabel("predicted risk")
    axes.set_ylabel("observed risk")
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return figure


def _slope(name: str, sums: Any) -> str:
    slope = summarise(sums).calibration_slope
    return f"{name}, slope {slope:.2f}" if slope is not None else name


def _decision(curves: dict[str, Any]) -> Figure:
    """Net benefit over thresholds."""
    figure = Figure(figsize=(5.5, 4.0))
    axes = figure.add_subplot()
    lowest = 0.0
    for name, sums in curves.items():
        curve = decision_curve(sums)
        style = "--" if name == POOLED else "-"  # it often lies on the federated one
        axes.plot(curve["threshold"], curve["model"], style, color=CURVES[name], label=name)
        if name == FEDERATED:
            axes.plot(curve["threshold"], curve["treat_all"], color=GRAY, linewidth=0.8, label="treat all")
            lowest = -0.2 * max([0.01, *curve["model"]])
    axes.axhline(0, color=GRAY, linewidth=0.8, linestyle=":", label="treat none")
    axes.set_ylim(bottom=lowest)
    axes.set_xlabel("threshold probability")
    axes.set_ylabel("net benefit (true positives per patient)")
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return figure


def _shares(evidence: pd.DataFrame) -> Figure:
    """Shares of federated and pooled models with their sd, and what leaving a modality out costs."""
    has_losses = "auc_lost_without" in evidence and bool(evidence["auc_lost_without"].notna().any())
    figure = Figure(figsize=(9 if has_losses else 5, 0.9 + 0.55 * len(evidence)))
    panels = figure.subplots(1, 2 if has_losses else 1, sharey=True, squeeze=False)[0]
    y = -np.arange(len(evidence), dtype=float)
    for offset, arm, colour in ((0.15, FEDERATED, BLUE), (-0.15, POOLED, ORANGE)):
        if f"share_{arm}" in evidence:
            spread = evidence[f"sd_{arm}"].astype(float).fillna(0.0)
            panels[0].errorbar(
                100 * evidence[f"share_{arm}"], y + offset, xerr=100 * spread, fmt="o", color=colour, label=arm
            )
    panels[0].set_xlim(left=0)
    panels[0].set_yticks(y, evidence["modality"])
    panels[0].set_xlabel("share of attribution, % (sd over models)")
    panels[0].legend(frameon=False, fontsize=8)
    if has_losses:
        loss = evidence["auc_lost_without"].astype(float)
        ends = np.stack([loss - evidence["low"].astype(float), evidence["high"].astype(float) - loss])
        panels[1].errorbar(loss, y, xerr=ends, fmt="o", color=BLUE)
        panels[1].axvline(0, color=GRAY, linewidth=0.8, linestyle=":")
        panels[1].set_xlabel("AUC lost without it (95 %, paired)")
    for axes in panels:
        plain(axes)
    figure.tight_layout()
    return figure
