"""`hipfed-server run`: a study on the running SuperLink, with the hospitals that are connected."""

import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from server.deployment.services import service_environment
from server.deployment.status import list_statuses
from server.deployment.unanswered import UnansweredQuestions
from server.enrolment.coordinator_home import CoordinatorHome
from server.flower.nodes import enrolled_nodes
from server.flower.run_config import COHORT, ENROLLED, OUT, RESUME, SCHEMA, format_enrolled
from server.flower.submission import (
    APP_END_S,
    CONNECTION,
    FlowerFolders,
    await_app_end,
    check_outcome,
    follow,
    require_checkout,
    submission,
    tolerant,
)
from server.idle_settings import refuse_idle_settings, refuse_unknown_names
from server.launch import is_done, parse_plan
from server.run_folder.folder import CONFIG, RunFolder
from server.run_folder.lock import LAUNCHER_LOCK
from server.run_folder.progress import watched
from server.run_folder.same_run import check_out
from server.settings_check import check_settings
from server.stopping import stopped_by_signals, telling_its_end
from shared_model.config import Scalar, Settings
from shared_model.errors import StudyError
from shared_model.process.folder_lock import hold_lock
from shared_model.process.supervision import read_status
from shared_model.protocol.messages import PROTOCOL_VERSION
from shared_model.protocol.study_hash import read_study

POLL_S = 1.0


def run_deployed(
    home: CoordinatorHome,
    study_file: Path,
    out: Path,
    *,
    resume: bool,
    console: Console,
) -> None:
    """Run a study, or go on with one; `out` tells the result.

    Args:
        home: a coordinator that runs.
        study_file: of `hipfed-server study`, as the hospitals approved it.
        out: the run folder.
        resume: continue an interrupted run.
        console: where progress is shown.

    Raises:
        SettingsError: a setting is wrong, or the folder is not as it must be.
        StudyFileError: the file is not one of a study, or is for another version of hipfed.
        StudyError: the coordinator does not run, too few hospitals are connected, another process works on the folder,
            or the run failed; then its status.json says why.
    """
    require_checkout()
    study_file, out = study_file.resolve(), out.resolve()
    study = read_study(study_file)
    study.check_version(protocol=PROTOCOL_VERSION)
    settings = parse_plan(study.settings)
    check_settings(study.study, settings)
    if not resume:
        refuse_idle_settings(study.study, settings)
    check_out(out, resume=resume)
    _require_services(home)
    if not resume:
        with home.open_registry() as registry:
            refuse_unknown_names(settings, [hospital.name for hospital in registry.hospitals])
    with hold_lock(out, LAUNCHER_LOCK):
        if is_done(out, settings, schema_sha256=study.study.sha256):
            return
        say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
        folder = RunFolder(out)
        connected = wait_for_hospitals(home, settings, before=_took_part(folder), say=say)
        with watched(folder, settings=settings, n_sites=len(connected), console=console) as watch:
            run_config: dict[str, Scalar] = {COHORT: "", SCHEMA: str(study_file), OUT: str(out), RESUME: resume}
            nodes = _nodes_of(home, connected, at_least=settings.min_sites)
            run_config |= {ENROLLED: format_enrolled(nodes), **settings.to_config()}
            questions = UnansweredQuestions(home.seen, hospitals=connected, say=watch.say)

            def look() -> None:
                watch()
                questions.look()

            _run(home, folder, run_config, watch=look, say=watch.say)


def _require_services(home: CoordinatorHome) -> None:
    status = read_status(home.processes)
    if status is None or not status.ready:
        found = "nothing" if status is None else status.line
        raise StudyError(
            f"coordinator at {home.folder}: expected it to run, got {found}. "
            f"Say `hipfed-server start --home {home.folder}`."
        )


def _took_part(folder: RunFolder) -> frozenset[str]:
    """The hospitals of the run that is to go on; none where it did not come to know them."""
    return frozenset(member["site"] for member in folder.read_json(CONFIG).get("roster", []))


def wait_for_hospitals(
    home: CoordinatorHome, settings: Settings, *, before: frozenset[str], say: Callable[[str], object]
) -> list[str]:
    """Wait until the wanted hospitals are connected, or `wait-s` is over; returns the names of those that are.

    Wanted are, on going on with a run, those that took part before; else `expected-sites` of them; else all that are
    enrolled. Who comes later is left out of the run for good.

    Args:
        home: the coordinator's.
        settings: of the run.
        before: hospitals that took part in the run that goes on.
        say: shows the user a line.

    Raises:
        StudyError: fewer than `min-sites` are connected then; the message names who is missing.
    """
    end = time.monotonic() + settings.wait_s
    told: list[str] | None = None
    while True:
        statuses = list_statuses(home, now=datetime.now(UTC))
        connected = [one.name for one in statuses if one.state == "connected"]
        missing = [one.name for one in statuses if one.state == "away"]
        if before:
            missing = [name for name in missing if name in before]
        late = time.monotonic() > end
        counted = 0 < settings.expected_sites <= len(connected) and not before
        if len(connected) >= settings.min_sites and (counted or late or not missing):
            if missing and not counted:
                say(f"going on without {', '.join(missing)}: not connected within {settings.wait_s:g} s (wait-s)")
            return connected
        if late:
            raise StudyError(
                f"connecting: expected at least {settings.min_sites} hospitals within {settings.wait_s:g} s "
                f"(min-sites), got {len(connected)}; missing: {', '.join(missing) or 'none that is enrolled'}. "
                f"Start them; if so few are meant, make a study with min-sites={max(len(connected), 1)}."
            )
        if connected != told:
            say(
                f"waiting for hospitals: {len(connected)} connected; "
                f"missing: {', '.join(missing) or 'none that is enrolled'}"
            )
            told = connected
        time.sleep(POLL_S)


def _run(
    home: CoordinatorHome,
    folder: RunFolder,
    run_config: Mapping[str, Scalar],
    *,
    watch: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    folder.write_status("running")
    with (
        telling_its_end(folder),
        stopped_by_signals(say),
        (folder.path / "flower.log").open("ab") as log,
        tempfile.TemporaryDirectory(prefix="hipfed-") as staging,
    ):
        place = FlowerFolders(home.flower, service_environment(home), log, lambda _pid: None)
        submit = submission(folder.path, run_config, staging=Path(staging))
        state = follow(
            submit,
            place,
            tolerant(watch, say),
            stop=partial(_stop_run, place, folder.path),
            patience_s=math.inf,
        )
    check_outcome(folder, flower_state=state, see=f"`hipfed-server status --home {home.folder}`")


def _nodes_of(home: CoordinatorHome, hospitals: Collection[str], *, at_least: int) -> dict[int, str]:
    """Names by Flower's node id.

    Raises:
        StudyError: Flower knows fewer of them than `at_least`, such as when one has just been revoked.
    """
    with home.open_registry() as registry:
        certificate = home.read_authority_certificate()
        nodes = enrolled_nodes(registry, address=home.settings.superlink, certificate=certificate)
    found = {node: name for node, name in nodes.items() if name in hospitals}
    if len(found) < at_least:
        raise StudyError(
            f"connecting: expected Flower to know at least {at_least} of {', '.join(hospitals)} (min-sites), got "
            f"{', '.join(found.values()) or 'none'}. See `hipfed-server status`; a coordinator that starts tells "
            "Flower who is enrolled."
        )
    return found


def _stop_run(place: FlowerFolders, run_folder: Path, run_id: str) -> None:
    """Stop a run on the SuperLink, which stays; and wait for its app, which may be writing a checkpoint."""
    command = ["flwr", "stop", run_id, CONNECTION]
    subprocess.run(  # noqa: S603 - Flower's own command
        command, env=place.environment, cwd=place.home, stdout=place.log, stderr=place.log, check=False
    )
    if not await_app_end(RunFolder(run_folder)):
        raise StudyError(
            f"{run_folder}: expected the app to end within {APP_END_S:g} s, got it "
            "still at work. Continue with --resume once it has ended."
        )
