"""`hipfed-sim run`: one study on a cohort folder, or one for each fold with their predictions pooled."""

import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from client.cohort_folder import list_hospitals
from server.flower.run_config import COHORT, OUT, RESUME, SCHEMA
from server.launch import is_done, parse_plan
from server.protocol.site_rows import hide_rows
from server.report.writing import REPORT
from server.run_folder.folder import CONFIG, RunFolder
from server.run_folder.lock import LAUNCHER_LOCK
from server.run_folder.progress import watched
from server.run_folder.same_run import check_out
from server.settings_check import check_settings
from server.stopping import stopped_by_signals, telling_its_end
from shared_model.config import Settings
from shared_model.errors import SettingsError
from shared_model.evaluation.score_quantities import unpack_scores
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.privacy.suppression import SmallCellRule, suppressed_row
from shared_model.process.folder_lock import hold_lock
from shared_model.schema import load_schema
from simulation.decoded import decoded_beside
from simulation.flower.engine import check_temporary_folder, require_ray, run_on_flower

FOLD = "fold"


def run_cohort(cohort: Path, out: Path, *, assignments: Mapping[str, str], resume: bool, console: Console) -> None:
    """Run the study of a cohort folder over Flower; `out` tells the result.

    Args:
        cohort: schema.toml and one folder a hospital.
        out: the run folder; with `fold=A..B`, the folder of a run folder for each fold and of the pooled metrics.
        assignments: settings by kebab-case key; `fold` may be a range A..B.
        resume: continue an interrupted run.
        console: where progress is shown.

    Raises:
        SettingsError: a setting is wrong, or the folders are not as they must be.
        SchemaError: the cohort has no valid schema.
        StudyError: another process works on the folder, or a run failed; its folder's status.json says why.
    """
    cohort, out = cohort.resolve(), out.resolve()
    folds = parse_folds(assignments.get(FOLD, "0"))
    plans = [parse_plan({**assignments, FOLD: fold}) for fold in folds]
    # What does not fit together is told here, not half a minute later in a folder that is then used up.
    schema = load_schema(cohort / "schema.toml")
    check_settings(schema, plans[0])
    if not resume and plans[0] != parse_plan({FOLD: folds[0]}):
        from server.idle_settings import refuse_idle_settings, refuse_unknown_names  # noqa: PLC0415 - torch

        refuse_idle_settings(schema, plans[0])
        refuse_unknown_names(plans[0], [path.name for path in list_hospitals(cohort)])
    n_sites = _count_hospitals(cohort, plans[0])
    require_ray()
    check_temporary_folder()
    check_out(out, resume=resume)
    run_fold = partial(_run_fold, cohort, n_sites=n_sites, resume=resume, console=console)
    with hold_lock(out, LAUNCHER_LOCK), decoded_beside(cohort, out):
        if len(folds) == 1:
            if not is_done(out, plans[0], schema_sha256=schema.sha256):
                run_fold(out, settings=plans[0])
            return
        parts = [out / f"{FOLD}-{fold}" for fold in folds]
        done = [
            is_done(part, settings, schema_sha256=schema.sha256) for part, settings in zip(parts, plans, strict=True)
        ]
        if (out / CONFIG).exists():
            raise SettingsError(f"{out}: expected the folder of a run of folds, got one of a single run. Give another.")
        todo = [(part, plan) for part, plan, finished in zip(parts, plans, done, strict=True) if not finished]
        if todo:
            _forget_pooled(out)
        say = partial(console.print, markup=False, highlight=False)
        with telling_its_end(RunFolder(out)), stopped_by_signals(say, also=(signal.SIGHUP,)):
            for part, settings in todo:
                with hold_lock(part, LAUNCHER_LOCK):
                    run_fold(part, settings=settings)
            _pool_folds(out, folds, plans[0])


def _count_hospitals(cohort: Path, settings: Settings) -> int:
    n_sites = len(list_hospitals(cohort))
    if n_sites < settings.min_sites:
        raise SettingsError(
            f"cohort at {cohort}: expected at least {settings.min_sites} hospital folders (min-sites), got {n_sites}. "
            f"Say --set min-sites={n_sites} if so few are meant."
            if n_sites
            else f"cohort at {cohort}: expected one folder a hospital, got none."
        )
    return n_sites


def parse_folds(text: str) -> list[int]:
    """Fold numbers of `3` or of a range `0..4`, both ends included.

    Raises:
        SettingsError: neither of the two.
    """
    first, dots, last = text.partition("..")
    try:
        folds = list(range(int(first), int(last if dots else first) + 1))
    except ValueError:
        folds = []
    if not folds:
        raise SettingsError(f"fold: expected a number or a range such as 0..4, got {text!r}.")
    return folds


def _run_fold(
    cohort: Path,
    out: Path,
    *,
    settings: Settings,
    n_sites: int,
    resume: bool,
    console: Console,
) -> None:
    folder = RunFolder(out)
    settings = settings.model_copy(update={"expected_sites": settings.expected_sites or n_sites})
    run_config = {
        COHORT: str(cohort),
        SCHEMA: "",
        OUT: str(out),
        RESUME: resume,
        **settings.to_config(),
    }
    with watched(folder, settings=settings, n_sites=n_sites, console=console) as watch:
        run_on_flower(folder=folder, run_config=run_config, n_sites=n_sites, watch=watch, say=watch.say)


def _forget_pooled(out: Path) -> None:
    """What was pooled of fewer folds: until all have finished, none of it is the result."""
    for name in ("metrics.json", "status.json", REPORT):
        (out / name).unlink(missing_ok=True)


def _pool_folds(out: Path, folds: Sequence[int], settings: Settings) -> None:
    """Out-of-fold predictions of all folds together: nobody is scored twice, nor by a model that saw them.

    A fold whose row is suppressed is not given back by subtracting the others' from the pooled one.
    """
    from server.protocol.evaluation import describe_scores  # noqa: PLC0415 - torch, which a launcher needs for nothing else

    sums, rows, failed = ScoreSums.zero(), {}, defaultdict[str, list[str]](list)
    for fold in folds:
        folder = RunFolder(out / f"fold-{fold}")
        sums = sums + unpack_scores(folder.read_scores())
        test = folder.read_json("metrics.json")["test"]
        rows[str(fold)] = test["pooled"]
        for name, reason in test["failed"].items():
            failed[name].append(f"fold {fold}: {reason}")
    rule = SmallCellRule.of(settings)
    pooled = describe_scores(sums, {}, rule)
    if pooled["pooled"] != suppressed_row():
        n, events = pooled["pooled"]["n"], pooled["pooled"]["events"]
        if hide_rows(rows, n=n, events=events, rule=rule, known_rows=0)[1] != rows:
            pooled = {"pooled": suppressed_row(), "sites": {}}
    pooled["failed"] = {name: "; ".join(reasons) for name, reasons in sorted(failed.items())}
    folder = RunFolder(out)
    folder.write_json("metrics.json", {"folds": list(folds), "test": pooled})
    folder.write_status("completed")
