"""comparison.md: the tables in words, beside the CSV files and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from client.site import Site
from shared_model.config import Settings
from shared_model.evaluation.auc_error import auc_standard_error
from shared_model.process.files import replace_file
from simulation.compare.arms import FEDERATED, GROUPS
from simulation.compare.depth import gradient_norms
from simulation.compare.figures import draw_figures
from simulation.compare.tables import (
    Finished,
    differences_table,
    evidence_table,
    metrics_table,
    rank_agreement,
    shares_table,
    stability,
    subgroups_table,
)

Row = Mapping[str, Any]

CAUTION = (
    "Differences are of the same patients, with DeLong's interval for paired AUCs. They describe; they are no test, "
    "and nothing here is called better, worse or significant. DeLong's interval takes each arm as one fixed model with "
    "independent patients, while these predictions are pooled over models of different folds; and models trained on "
    "other patients would differ, which no interval here holds. So it is too narrow to choose an arm by."
)


def write_report(
    out: Path,
    arms: Sequence[Finished],
    *,
    sites: Sequence[Site],
    settings: Settings,
    folds: int,
    seeds: int,
    assignments: Mapping[str, str],
    failed: Mapping[str, str],
) -> None:
    """Write all tables as CSV, the figures, and comparison.md.

    Args:
        out: folder of results.
        arms: that are finished; the federated one is among them.
        sites: all hospitals.
        settings: that all arms share, for the strata.
        folds: of the comparison.
        seeds: of the comparison.
        assignments: settings of all arms that are not the defaults.
        failed: by arm, why it could not be trained.
    """
    metrics, differences = metrics_table(arms), differences_table(arms)
    subgroups, shares, evidence = subgroups_table(arms, sites, settings), shares_table(arms), evidence_table(arms)
    depth = gradient_norms(sites, settings, sites[0].schema)
    tables = {
        "arms": metrics,
        "differences": differences,
        "subgroups": subgroups,
        "shares": shares,
        "evidence": evidence,
        "depth": depth,
    }
    for name, table in tables.items():
        replace_file(out / f"{name}.csv", table.to_csv(index=False, float_format="%.6g").encode())
    figures = draw_figures(
        out / "figures", arms, metrics=metrics, differences=differences, evidence=evidence, depth=depth
    )
    parts = [
        _head(metrics, sites, folds=folds, seeds=seeds, assignments=assignments, failed=failed),
        _arms_section(metrics, differences),
        _cost_section(metrics),
        _evidence_section(evidence, arms),
        _subgroup_section(subgroups),
        _depth_section(depth),
        _untrained_section(arms),
        "## Figures\n\n" + "\n".join(f"![{name.removesuffix('.png')}](figures/{name})" for name in figures),
    ]
    replace_file(out / "comparison.md", ("\n\n".join(part for part in parts if part) + "\n").encode())


def _head(
    metrics: pd.DataFrame,
    sites: Sequence[Site],
    *,
    folds: int,
    seeds: int,
    assignments: Mapping[str, str],
    failed: Mapping[str, str],
) -> str:
    reference = metrics[metrics["arm"] == FEDERATED].iloc[0]
    n, events, auc = int(reference["n"]), int(reference["events"]), float(reference["auc"])
    error = float(auc_standard_error(np.asarray(auc), events=events, others=n - events))
    given = ", ".join(f"`{key}={value}`" for key, value in sorted(assignments.items()))
    study = sites[0].schema.study
    lines = [
        "# Comparison",
        "",
        f"{study.title or study.name}; outcome `{study.outcome}`. Settings of all arms: {given or 'the defaults'}.",
        "",
        (
            f"{n} patients, {events} events, {len(sites)} hospitals. Every patient is predicted by models that never "
            f"saw them ({folds} folds), the log odds averaged over {seeds} seed{'s' if seeds > 1 else ''}."
        ),
        "",
        (
            f"With {events} events an AUC of {auc:.3f} has a standard error of {error:.3f} (Hanley and McNeil). "
            f"{CAUTION} {len(metrics) - 1} differences stand below, of which some are large by chance alone."
        ),
    ]
    lines += [f"\n**{arm} could not be trained**: {reason}" for arm, reason in failed.items()]
    return "\n".join(lines)


_ARM_COLUMNS = (
    *("arm", "n", "AUC", "within hospitals", "one seed", "difference", "from"),
    *("difference within hospitals", "Brier", "slope"),
)


def _arms_section(metrics: pd.DataFrame, differences: pd.DataFrame) -> str:
    found = {row["arm"]: row for row in _rows(differences)}
    lines = ["## Arms", "", f"| {' | '.join(_ARM_COLUMNS)} |", "|---" * len(_ARM_COLUMNS) + "|"]
    before = ""
    for row in _rows(metrics):
        if row["group"] != before:
            before = row["group"]
            lines.append(f"| *{GROUPS[before]}* " + "| " * len(_ARM_COLUMNS[1:]) + "|")
        difference = found.get(row["arm"], {})
        lines.append(
            f"| {row['arm']}: {row['description']} | {row['n']} | {_interval(row, 'auc', 'auc_low', 'auc_high')} "
            f"| {_number(row['auc_within'])} | {_number(row['single_seed_auc'])} "
            f"| {_interval(difference, 'difference', 'low', 'high', sign=True)} | {difference.get('against', '')} "
            f"| {_interval(difference, 'within_difference', 'within_low', 'within_high', sign=True)} "
            f"| {_number(row['brier'], 4)} | {_number(row['calibration_slope'], 2)} |"
        )
    lines += [
        "",
        (
            "AUC over all pairs of an event and a non-event, and over pairs of the same hospital: the first also "
            "rewards knowing which hospital has more events. AUCs are of histograms, as in a run, and differences are "
            "exact: they may disagree by a few thousandths. `one seed` is the mean AUC of single seeds; all else is "
            "of log odds averaged over seeds, each with other splits and weights, which favours arms that vary from "
            "seed to seed. Arms that do not predict all patients (n) are compared over those that they do. Regression, "
            "boosting and points learn from the validation part, too, which the networks need to choose the best "
            "round. Every hospital takes part, whatever its data quality."
        ),
    ]
    return "\n".join(lines)


def _cost_section(metrics: pd.DataFrame) -> str:
    trained = metrics.dropna(subset=["rounds_per_model"])
    if not len(trained):
        return ""
    lines = ["## What it costs", "", "| arm | models | rounds | seconds | MB on the wire |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['arm']} | {row['models']} | {row['rounds_per_model']:.0f} | {row['seconds_per_model']:.1f} "
        f"| {row['bytes_per_model'] / 1e6:.2f} |"
        for row in _rows(trained)
    ]
    note = (
        "Per model, of the training rounds with their validation: without statistics, whole models for the test part, "
        "and explanations. Seconds on this machine, hospitals one by one."
    )
    return "\n".join([*lines, "", note])


def _evidence_section(evidence: pd.DataFrame, arms: Sequence[Finished]) -> str:
    if not len(evidence):
        return ""
    lines = [
        "## What the models look at",
        "",
        "| modality | share, federated (sd over models) | share, pooled | AUC lost without it |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['modality']} | {_share(row, 'federated')} | {_share(row, 'pooled')} "
        f"| {_interval(row, 'auc_lost_without', 'low', 'high', sign=True)} |"
        for row in _rows(evidence)
    ]
    tau = rank_agreement(evidence)
    if tau is not None:
        n_losses = int(evidence["auc_lost_without"].notna().sum())
        lines += ["", f"Kendall's tau of shares and losses over {n_losses} modalities: {tau:.2f}."]
    for one in arms:
        found = stability(one)
        if found is not None and one.arm.name in {FEDERATED, "pooled"}:
            lines += [
                "",
                (
                    f"Two {one.arm.name} models of other folds and seeds differ in their shares by "
                    f"{100 * found['mean_l1']:.1f} points in all (sum over modalities); their order agrees with a "
                    f"Kendall's tau of {found['mean_kendall_tau']:.2f} on average."
                ),
            ]
    lines += [
        "",
        (
            "A share says what a model uses, a loss whether another modality can stand in for it: a modality with a "
            "share and hardly a loss is one that others can replace, one that is used in vain, or one whose "
            "loss is too small for this many events. A share of 0 is that of a modality whose weights the evidence "
            "shrank to nothing; its interval in a run's explanations is for the model as it is."
        ),
    ]
    return "\n".join(lines)


def _share(row: Row, arm: str) -> str:
    share, sd = row.get(f"share_{arm}"), row.get(f"sd_{arm}")
    if share is None or pd.isna(share):
        return ""
    return f"{100 * share:.1f} %" + ("" if sd is None or pd.isna(sd) else f" ({100 * sd:.1f})")


def _subgroup_section(subgroups: pd.DataFrame) -> str:
    shown = subgroups[subgroups["arm"] == FEDERATED] if len(subgroups) else subgroups
    if not len(shown):
        return ""
    lines = [
        "## Groups of patients (federated arm)",
        "",
        "| group | n | events | AUC | observed risk | predicted risk |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['variable']} {row['label']} | {row['n']} | {row['events']} "
        f"| {_interval(row, 'auc', 'auc_low', 'auc_high')} | {100 * row['observed']:.1f} % "
        f"| {100 * row['predicted']:.1f} % |"
        for row in _rows(shown)
    ]
    return "\n".join(lines)


def _depth_section(depth: pd.DataFrame) -> str:
    if not len(depth):
        return ""
    lines = [
        "## Gradients by depth",
        "",
        "| image | network | first convolution | last convolution | last / first |",
        "|---|---|---|---|---|",
    ]
    for (image, network), rows in depth.groupby(["image", "network"], sort=False):
        first, last = float(rows["relative"].iloc[0]), float(rows["relative"].iloc[-1])
        lines.append(f"| {image} | {network} | {first:.2g} | {last:.2g} | {last / first:.2g} |")
    return "\n".join([*lines, "", "Gradient norm over weight norm in an untrained network, on a batch of real images."])


def _untrained_section(arms: Sequence[Finished]) -> str:
    lines = [f"- {one.arm.name}, {site}: {reason}" for one in arms for site, reason in sorted(one.untrained.items())]
    return "\n".join(["## Hospitals without a model of their own", "", *lines]) if lines else ""


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _number(value: Any, digits: int = 3) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def _interval(row: Row, value: str, low: str, high: str, *, sign: bool = False) -> str:
    found = [row.get(key) for key in (value, low, high)]
    if any(each is None or pd.isna(each) for each in found):
        return ""
    form = "+.3f" if sign else ".3f"
    middle, lower, upper = (format(each, form) for each in found)
    return f"{middle} ({lower} to {upper})"
