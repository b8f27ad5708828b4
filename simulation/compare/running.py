"""A whole comparison: all tasks, in parallel and resumable, then tables, figures and the report."""

import logging
import multiprocessing
import re
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from server.run_folder.folder import RunFolder
from server.run_folder.lock import COMPARISON_LOCK
from server.run_folder.progress import show_bars
from server.settings_check import check_settings
from server.stopping import telling_its_end
from shared_model.config import Settings, parse_settings
from shared_model.errors import SettingsError, StudyError
from shared_model.process.folder_lock import hold_lock
from shared_model.schema import Schema, load_schema
from simulation.compare import points as points_score
from simulation.compare.arms import GROUPS, Arm, choose_arms, list_arms
from simulation.compare.report import write_report
from simulation.compare.tables import read_arm
from simulation.compare.tasks import Task, do_task, list_tasks, open_sites
from simulation.flower.guardian import guarded

GO_ON = "the same command goes on"
EXAMPLE_SCORE = Path(__file__).with_name("nottingham.toml")
QUICK = ("federated", "pooled", "modality", "regression")


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes:
        cohort: schema.toml and one folder a hospital.
        out: folder of results; what it holds of the same tasks is used again.
        folds: held out in turn, their predictions pooled.
        seeds: how many, from 0; predictions are averaged over them.
        arms: names or groups of arms; empty = all that the study has.
        quick: for a first look, without `arms`: those of `QUICK` that the study has.
        occasions: groups of modalities by name; empty = before and during the operation.
        points: TOML file of a points score; None = the example, where the study has its columns.
        assignments: settings of all arms by kebab-case key.
        workers: processes side by side.
    """

    cohort: Path
    out: Path
    folds: int = 5
    seeds: int = 3
    arms: tuple[str, ...] = ()
    quick: bool = False
    occasions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    points: Path | None = None
    assignments: Mapping[str, str] = field(default_factory=dict)
    workers: int = 2


def compare_cohort(plan: Plan, *, console: Console) -> None:
    """Do all tasks that are not done yet and write comparison.md, its tables and figures.

    Args:
        plan: what to compare.
        console: where progress is shown.

    Raises:
        SettingsError: a setting, an arm or the points score is wrong.
        SchemaError: the cohort has no valid schema.
        DataError: a hospital's folder breaks the data contract.
        StudyError: an arm could not be trained; the report is of the others.
    """
    if (plan.out / "status.json").exists() and not (plan.out / COMPARISON_LOCK).exists():
        raise SettingsError(f"--out at {plan.out}: expected a new folder or a comparison's, got a run's. Give another.")
    schema = load_schema(plan.cohort / "schema.toml")
    settings = _check(plan, schema)
    score = _points_file(plan, schema)
    every = list_arms(
        schema, assignments=plan.assignments, occasions=dict(plan.occasions) or None, points=score is not None
    )
    quick = tuple(name for name in QUICK if plan.quick and any(name in {arm.name, arm.group} for arm in every))
    arms = choose_arms(every, plan.arms or quick)
    plan.out.mkdir(parents=True, exist_ok=True)
    with hold_lock(plan.out, COMPARISON_LOCK), _told(plan.out) as place:
        tasks = list_tasks(
            arms,
            cohort=plan.cohort.resolve(),
            out=plan.out.resolve(),
            folds=plan.folds,
            seeds=plan.seeds,
            assignments=plan.assignments,
            points=str(score or ""),
        )
        failed = _do_all(tasks, workers=plan.workers, place=place, console=console)
        finished = [read_arm(arm, of_arm) for arm, of_arm in _by_arm(arms, tasks) if all(t.is_done() for t in of_arm)]
        if not any(one.arm.name == "federated" for one in finished):
            raise StudyError(f"the federated arm failed: {_first(failed)}")
        write_report(
            plan.out, finished, sites=open_sites(plan.cohort.resolve()), settings=settings, folds=plan.folds,
            seeds=plan.seeds, assignments=plan.assignments, failed=failed,
        )  # fmt: skip
        if failed:
            raise StudyError(f"{len(failed)} of {len(arms)} arms failed: {', '.join(failed)}. First: {_first(failed)}")


@dataclass(frozen=True)
class _Place:
    """Where processes work that train.

    Attributes:
        temporary: their folder for temporary files, which goes with this process, however that ends.
        guard: told the id of each.
    """

    temporary: Path
    guard: Callable[[int], None]


@contextmanager
def _told(out: Path) -> Iterator[_Place]:
    """status.json says how the comparison stands: within the block, and after it; also if this process is killed."""
    folder = RunFolder(out)
    with (
        telling_its_end(folder, go_on=GO_ON),
        tempfile.TemporaryDirectory(prefix="hipfed-") as temporary,
        guarded(home=Path(temporary), run=out.resolve(), log=None, lock=COMPARISON_LOCK, go_on=GO_ON) as guard,
    ):
        folder.write_status("running")
        yield _Place(Path(temporary), guard)
        folder.write_status("completed")


def _check(plan: Plan, schema: Schema) -> Settings:
    """Settings that all arms share; faults are told before anything is trained."""
    for key in ("fold", "seed", "folds", "explain", "explain-every"):
        if key in plan.assignments:
            raise SettingsError(f"--set {key}: expected another setting; a comparison decides this one itself.")
    settings = parse_settings({**plan.assignments, "folds": plan.folds})
    check_settings(schema, settings)
    n_sites = len(open_sites(plan.cohort.resolve()))
    if n_sites < max(settings.min_sites, 2):
        raise SettingsError(
            f"cohort at {plan.cohort}: expected at least {max(settings.min_sites, 2)} hospital folders (min-sites), "
            f"got {n_sites}."
        )
    taken = {arm.name for arm in list_arms(schema, occasions={}, points=True)} | set(GROUPS)
    for name, chosen in plan.occasions.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name) or name in taken:
            raise SettingsError(
                f"--group {name}: expected a new name of small letters, digits and hyphens, got one that is taken or "
                "has other characters."
            )
        unknown = sorted(set(chosen) - set(schema.modalities))
        if unknown or not chosen:
            raise SettingsError(
                f"--group {name}: expected some of {', '.join(schema.modalities)}, got {', '.join(unknown) or 'none'}."
            )
    return settings


def _points_file(plan: Plan, schema: Schema) -> Path | None:
    if plan.points is not None:
        points_score.load_points(plan.points, schema)
        return plan.points.resolve()
    return EXAMPLE_SCORE if points_score.fits(EXAMPLE_SCORE, schema) else None


def _by_arm(arms: Sequence[Arm], tasks: Sequence[Task]) -> list[tuple[Arm, list[Task]]]:
    return [(arm, [task for task in tasks if task.arm == arm]) for arm in arms]


def _do_all(tasks: Sequence[Task], *, workers: int, place: _Place, console: Console) -> dict[str, str]:
    """Do what is not done; returns the reason by name of each arm that failed."""
    todo = [task for task in tasks if not task.is_done()]
    if len(todo) < len(tasks):
        console.print(f"{len(tasks) - len(todo)} of {len(tasks)} models are there already", highlight=False)
    failed: dict[str, str] = {}
    if not todo:
        return failed
    progress = show_bars(console)
    progress.disable = not console.is_terminal
    spawn = multiprocessing.get_context("spawn")
    start = partial(_start_worker, place.temporary)
    with progress, ProcessPoolExecutor(workers, mp_context=spawn, initializer=start) as pool:
        bar = progress.add_task("models", total=len(tasks), completed=len(tasks) - len(todo), last="")
        futures: dict[Future[str], Task] = {pool.submit(do_task, task): task for task in todo}
        for process in multiprocessing.active_children():
            place.guard(process.pid or 0)
        try:
            for future in as_completed(futures):
                task, reason = futures[future], future.result()
                if reason:
                    failed.setdefault(task.arm.name, reason)
                    progress.console.print(f"{task.label}: {reason}", markup=False, highlight=False)
                progress.update(bar, advance=1, last=task.label)
                if not console.is_terminal:
                    n_done = sum(one.done() for one in futures) + len(tasks) - len(todo)
                    console.print(f"{n_done} of {len(tasks)} models: {task.label}", markup=False, highlight=False)
        except BrokenProcessPool as error:
            raise StudyError(
                "models: expected processes that train to the end, got one that was ended from outside: by Ctrl-C, or "
                "for want of memory (then give fewer --workers). What is done is kept; the same command goes on."
            ) from error
        except BaseException:
            _end_training(pool)
            raise
    return failed


def _end_training(pool: ProcessPoolExecutor) -> None:
    """End what is trained now, which would be waited for."""
    pool.shutdown(wait=False, cancel_futures=True)
    training = multiprocessing.active_children()
    for process in training:
        process.terminate()
    for process in training:  # they write to the folder of temporary files, which is removed next
        process.join()


def _start_worker(temporary: Path) -> None:
    """One thread a process, and no log on the screen: the report tells what the runs found. Ctrl-C ends it at once.

    Args:
        temporary: folder of its temporary files, which somebody else clears away.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tempfile.tempdir = str(temporary)
    threadpool_limits(1)
    logging.getLogger("hipfed").addHandler(logging.NullHandler())


def _first(failed: Mapping[str, str]) -> str:
    return next(iter(failed.values()), "no reason")
