"""Flower's ServerApp: reads the run config, runs the study, and leaves a run folder that tells the truth."""

import logging
from collections.abc import Mapping
from pathlib import Path

import httpx
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.flower.link import FlowerLink
from server.flower.run_config import COHORT, ENROLLED, OUT, PLACES, RESUME, SCHEMA, parse_enrolled
from server.idle_settings import refuse_idle_settings
from server.launch import parse_plan
from server.report.writing import REPORT, write_apart
from server.run_folder.folder import RunFolder, State
from server.run_folder.lock import APP_LOCK
from server.run_folder.same_run import refuse_second_run
from server.study import run_study
from shared_model.config import Scalar
from shared_model.errors import HipfedError, LockedError, SettingsError
from shared_model.process.files import is_full
from shared_model.process.folder_lock import hold_lock
from shared_model.protocol.study_hash import read_study
from shared_model.schema import Schema, load_schema

log = logging.getLogger("hipfed.server")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One study run. A failure is written to status.json and raised, so that Flower marks the run as failed too."""
    run_config: Mapping[str, Scalar] = dict(context.run_config)
    folder = RunFolder(Path(str(run_config[OUT] or "runs/flwr")).expanduser().resolve())
    try:
        with hold_lock(folder.path, APP_LOCK):
            if not run_config[RESUME]:
                refuse_second_run(folder)
            _run(grid, run_config, folder)
    except (LockedError, SettingsError) as error:
        log.error("%s", error)  # noqa: TRY400 - a traceback says nothing to a user's mistake
        raise SystemExit(1) from error  # and leave the other run's status as it is


def _run(grid: Grid, run_config: Mapping[str, Scalar], folder: RunFolder) -> None:
    folder.remove_unfinished()
    (folder.path / REPORT).unlink(missing_ok=True)  # of an earlier attempt
    _log_to(folder)
    folder.write_status("running")
    try:
        settings = parse_plan({key: value for key, value in run_config.items() if key not in PLACES})
        schema = _read_schema(_schema_path(run_config))
        if not run_config[RESUME]:
            refuse_idle_settings(schema, settings)
        run_study(
            FlowerLink(grid),
            schema=schema,
            settings=settings,
            folder=folder,
            resume=bool(run_config[RESUME]),
            enrolled=parse_enrolled(str(run_config[ENROLLED])),
        )
    except HipfedError as error:
        log.error("the run failed: %s", error)  # noqa: TRY400 - a traceback says nothing to a user's mistake
        _end(folder, "failed", str(error))
        raise SystemExit(1) from error
    except (SystemExit, KeyboardInterrupt):  # Flower's answer to a signal: nothing is started any more
        reason = _explain_stop(run_config)
        log.error("the run failed: %s", reason)  # noqa: TRY400 - a traceback says only where it was at the time
        folder.write_status("failed", reason)
        raise
    except Exception as error:
        log.exception("the run failed")
        _end(folder, "failed", _explain(error, folder))
        raise
    except BaseException as error:  # such as a library's panic: nothing is started any more
        log.exception("the run failed")
        folder.write_status("failed", _explain(error, folder))
        raise
    _end(folder, "completed")


def _end(folder: RunFolder, state: State, reason: str = "") -> None:
    """Say how the run ended, and then report it: a report that cannot be written changes nothing of that."""
    folder.write_status(state, reason)
    write_apart(folder.path, say=log.info)


def _explain(error: BaseException, folder: RunFolder) -> str:
    if isinstance(error, OSError) and is_full(error):
        return f"{folder.path}: expected room on its disk, got none left. Make room, then continue with --resume."
    if isinstance(error, httpx.HTTPStatusError) and error.response.is_server_error:
        return (
            f"SuperLink: expected an answer, got HTTP {error.response.status_code}. Its disk may be full (see its "
            "log); mend that, then continue with --resume."
        )
    return f"{type(error).__name__}: {error}"


def _explain_stop(run_config: Mapping[str, Scalar]) -> str:
    """Flower ends its app alike when the run is stopped, when its SuperLink ends, and when either hears no other."""
    where = "superlink.log" if run_config[ENROLLED] else "flower.log"  # of a deployment, of a simulation
    return (
        f"Flower ended the app: the run or its SuperLink was stopped, or they lost touch (see {where}); "
        "continue with --resume"
    )


def _schema_path(run_config: Mapping[str, Scalar]) -> Path:
    if run_config[SCHEMA]:
        return Path(str(run_config[SCHEMA])).expanduser()
    if run_config[COHORT]:
        return Path(str(run_config[COHORT])).expanduser() / "schema.toml"
    raise SettingsError("schema: expected the study's schema.toml, got none. Set schema, or cohort for a simulation.")


def _read_schema(path: Path) -> Schema:
    """From schema.toml, or from the file by which hospitals approved the study."""
    return read_study(path).study if path.suffix == ".json" else load_schema(path)


def _log_to(folder: RunFolder) -> None:
    """The app's log goes to the run folder and to Flower's stream."""
    log.setLevel(logging.INFO)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    for handler in (logging.FileHandler(folder.path / "log.txt", encoding="utf-8"), logging.StreamHandler()):
        handler.setFormatter(formatter)
        log.addHandler(handler)
