"""A folder of many runs, as a dashboard finds it after years: copies of one real run, with as many rounds as wanted."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.cohort_folder import list_hospitals
from server.run_folder.folder import RunFolder
from shared_model.config import Scalar, parse_settings
from simulation.cohort import write_cohort
from simulation.finished.explained import run_in_process
from simulation.in_process import accept_all

Line = dict[str, Any]

HOSPITALS = 3
_COPIED = ("status.json", "config.json", "quality.json", "metrics.json", "model.json", "explanations.json")
_ONLY_AT_THE_END = ("metrics.json", "model.json", "explanations.json")
_SETTINGS: dict[str, Scalar] = {
    "device": "cpu",
    "modalities": "static,vitals,medications",  # images would take most of the time, and the dashboard shows none
    "rounds-unimodal": 1,
    "rounds-fusion": 3,
    "background-rows": 30,
}


def make_run(folder: Path, *, patients: int) -> Path:
    """A real run of a synthetic cohort, in this process; its folder."""
    cohort, run = folder / "cohort", folder / "run"
    write_cohort(cohort, hospitals=HOSPITALS, patients=patients, image_size=33)
    names = [hospital.name for hospital in list_hospitals(cohort)]
    run_in_process(cohort, run, accept_all(parse_settings(_SETTINGS), names), cache_dir=folder / "cache")
    RunFolder(run).write_status("completed")
    return run


def copy_run(run: Path, out: Path, *, rounds: int) -> list[Line]:
    """What a dashboard reads of a finished run, with other rounds, which are returned."""
    copy = RunFolder(out)
    for name in _COPIED:
        if (run / name).exists():
            shutil.copyfile(run / name, out / name)
    settings = copy.read_json("config.json")
    settings["settings"]["rounds-fusion"] = rounds
    copy.write_json("config.json", settings)
    lines = stretch_rounds(read_lines(run), rounds)
    copy.write_rounds(lines)
    return lines


def copy_running(run: Path, out: Path, *, rounds: int) -> list[Line]:
    """As `copy_run`, of a run that goes on."""
    lines = copy_run(run, out, rounds=rounds)
    for name in _ONLY_AT_THE_END:
        (out / name).unlink(missing_ok=True)
    RunFolder(out).write_status("running")
    return lines


def read_lines(run: Path) -> list[Line]:
    """The rounds of a run."""
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]


def stretch_rounds(lines: Sequence[Line], rounds: int) -> list[Line]:
    """So many rounds: those that trained, in their order, then the last of them again and again."""
    trained = [line for line in lines if line["train_loss"] is not None]
    return [next_round(trained[min(i, len(trained) - 1)], number=i + 1) for i in range(rounds)]


def next_round(line: Line, *, number: int) -> Line:
    """The same with another number, and a loss, if it is told, that falls from round to round."""
    loss = line["val_loss"]
    return {**line, "round": number, "val_loss": None if loss is None else loss * (1 + 1 / number)}
