"""A run folder in a few lines on the screen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from server.report.content import names_deaths
from server.run_folder.explanation import SMALLEST_SHARE
from server.run_folder.folder import RunFolder, read_status
from server.run_folder.quality_findings import QUALITY_FILE, describe_findings
from shared_model.errors import StudyError
from shared_model.model.untrained_encoders import describe_encoder, is_untrained, used_images
from shared_model.pages.screen_table import print_table

REFITS_NOTE = (
    "range over refits: where the share may lie with other patients; encoders kept. A share is what the model uses, "
    "not what matters in patients."
)
_OLDER = {"reason": "the run is of a version without it"}
NEW_HOSPITAL_NOTE = "prediction interval for a new hospital: its share is expected there at 95 %"
FEWEST_FOR_NEW = 5


def print_run(path: Path, console: Console) -> None:
    """State of a run, who was excluded and why, and its metrics if it has come that far.

    Raises:
        StudyError: not a run folder, or a file in it cannot be read.
    """
    state, reason = read_status(path)
    if state == "missing":
        raise StudyError(_describe_missing(path))
    console.print(f"{state}" + (f": {reason}" if reason else ""), markup=False)
    folder = RunFolder(path)
    if state != "completed":
        for line in _describe_folds(path):
            console.print(line, markup=False, highlight=False)
    config = folder.read_json("config.json")
    for name, why in config.get("excluded", {}).items():
        console.print(f"excluded: {name}: {why}", markup=False)
    print_encoders(config, console)
    quality = folder.read_json(QUALITY_FILE)
    if quality:
        print_quality(quality, console)
    metrics = folder.read_json("metrics.json")
    if metrics:
        print_metrics(metrics, console, events=_name_events(path, metrics))
    explanations = folder.read_json("explanations.json")
    if explanations:
        print_shares(explanations, console)
    console.print(f"run folder: {path}", markup=False, soft_wrap=True)


def _name_events(path: Path, metrics: Mapping[str, Any]) -> str:
    """Deaths where the study says so; pooled folds share the first one's config."""
    folds = metrics.get("folds", ())
    config = RunFolder(path / f"fold-{folds[0]}" if folds else path).read_json("config.json")
    study = config.get("schema", {}).get("study", {})
    is_death = names_deaths(title=study.get("title", ""), outcome=study.get("outcome", ""))
    return "deaths" if is_death else "events"


def _describe_missing(path: Path) -> str:
    """A folder without a status is that of folds which have not all finished, or no run folder."""
    folds = _describe_folds(path)
    if not folds:
        return f"{path}: expected a run folder with status.json, got none. Give the folder that --out named."
    return "\n".join(
        [
            f"{path}: expected all folds finished and pooled, got:",
            *folds,
            "Show one of these folders, or repeat the command of the run with --resume.",
        ]
    )


def _describe_folds(path: Path) -> list[str]:
    """A line for each fold's folder in a folder of folds."""
    folds = {fold.name: read_status(fold) for fold in sorted(path.glob("fold-*"), key=_fold_number) if fold.is_dir()}
    return [f"  {name}: {state}" + (f": {reason}" if reason else "") for name, (state, reason) in folds.items()]


def _fold_number(path: Path) -> int:
    number = path.name.removeprefix("fold-")
    return int(number) if number.isdecimal() else 0


def print_encoders(config: Mapping[str, Any], console: Console) -> None:
    """A line where images go through a network that nobody trained."""
    settings = config.get("settings", {})
    images = used_images(settings, config.get("schema", {}).get("images", {}))
    if images and is_untrained(settings):
        told = f"images: {', '.join(images)}: {describe_encoder(settings)}"
        console.print(told, markup=False, highlight=False, soft_wrap=True)


def print_quality(quality: Mapping[str, Any], console: Console) -> None:
    """A line for each hospital whose data are amber or red, hidden or not judged, and one for all that are green."""
    lines, green = dict(quality["failed"]), []
    for name, entry in quality["hospitals"].items():
        found = describe_findings(entry)
        if entry.get("suppressed"):
            lines[name] = "suppressed"
        elif not found:
            green.append(name)
        else:
            note = "" if entry["grade"] != "red" else " (refused)" if entry["refused"] else " (accepted)"
            lines[f"{name}{note}"] = found
    for name in sorted(lines):
        console.print(f"data quality: {name}: {lines[name]}", markup=False, highlight=False, soft_wrap=True)
    if green:
        console.print(f"data quality: green: {', '.join(green)}", markup=False, highlight=False, soft_wrap=True)


def print_metrics(metrics: Mapping[str, Any], console: Console, *, events: str, title: str = "test part") -> None:
    """Metrics of all patients together, then of each hospital that released its row.

    Args:
        metrics: of metrics.json.
        console: where to.
        events: heading of their column.
        title: heading of the groups.
    """
    test, rows = metrics["test"], []
    for name, row in {"all hospitals": test["pooled"], **test["sites"]}.items():
        if row.get("suppressed"):
            rows.append((name, "", "", "", "suppressed"))
            continue
        ci = "-".join(_number(end) for end in row["auc_ci"] or ())
        figures = (_number(row[key]) for key in ("log_loss", "calibration_slope"))
        rows.append((name, str(row["n"]), str(row["events"]), _number(row["auc"]), ci, *figures))
    print_table(console, (title, "n", events, "AUC", "95 % CI", "log loss", "slope"), rows)
    if test["pooled"].get("auc_within") is not None:
        within = _number(test["pooled"]["auc_within"])
        console.print(f"AUC within hospitals {within}: patients compared with those of their own", highlight=False)
    for name, reason in test.get("failed", {}).items():
        console.print(f"failed: {name}: {reason}", markup=False)


def print_shares(explanations: Mapping[str, Any], console: Console) -> None:
    """What the model looks at: shares of the modalities, over all hospitals that answered."""
    for name, reason in explanations.get("failed", {}).items():
        console.print(f"not in the explanation: {name}: {reason}", markup=False)
    for name, reason in explanations.get("spread_failed", {}).items():
        console.print(f"not in the spread between hospitals: {name}: {reason}", markup=False)
    if explanations.get("suppressed"):
        console.print("explanation: suppressed, too few patients, events or hospitals", highlight=False)
        return
    if len(explanations["modalities"]) == 1:
        only = next(iter(explanations["modalities"]))
        console.print(f"explanation: {only} is the only modality: its share is 100% by construction", highlight=False)
        return
    if all(entry["share"] is None for entry in explanations["modalities"].values()):
        console.print("explanation: the model uses none of its inputs, so there are no shares", highlight=False)
        return
    _print_share_table(explanations, console)


def _print_share_table(explanations: Mapping[str, Any], console: Console) -> None:
    entries = dict(sorted(explanations["modalities"].items(), key=lambda item: -(item[1]["share"] or 0.0)))
    told = [_describe_share(entry) for entry in entries.values()]
    columns = {
        "modality": list(entries),
        "share of attribution": [share for share, _ in told],
        "range over refits": [ends for _, ends in told],
        "prediction interval": [_expect_new(entry) for entry in entries.values()],
    }
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    print_table(console, tuple(shown), list(zip(*shown.values(), strict=True)))
    reason = explanations.get("share_interval", _OLDER)["reason"]
    note = f"no range over refits: {reason}" if reason else REFITS_NOTE
    console.print(note, markup=False, highlight=False, soft_wrap=True)
    if "prediction interval" in shown:
        console.print(NEW_HOSPITAL_NOTE, markup=False, highlight=False, soft_wrap=True)


def _describe_share(entry: Mapping[str, Any]) -> tuple[str, str]:
    """The share, or that there is no evidence of one; and its range, never that with the model kept, nor 0.0 %."""
    ends = entry.get("share_range")
    if entry.get("evidence") is False:
        return "no evidence", f"up to {_percent(ends[1])}" if ends and ends[1] >= SMALLEST_SHARE else ""
    if not _is_used(entry):
        return "not used by this model", ""
    return _percent(entry["share"]), "-".join(_percent(end) for end in ends or ())


def _is_used(entry: Mapping[str, Any]) -> bool:
    return entry["share"] is not None and entry["share"] >= SMALLEST_SHARE


def _expect_new(entry: Mapping[str, Any]) -> str:
    """The prediction interval; of fewer hospitals nothing can be said of the next one."""
    if (entry.get("hospitals") or 0) < FEWEST_FOR_NEW or entry.get("evidence") is False or not _is_used(entry):
        return ""
    return "-".join(_percent(end) for end in entry["prediction_interval"] or ())


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
