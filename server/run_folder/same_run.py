"""A new folder, or the same run again: the rules of what a run may be written into."""

import secrets
from pathlib import Path

from server.run_folder.folder import CONFIG, RunFolder
from server.run_folder.lock import COMPARISON_LOCK, LOCKS
from shared_model.config import Settings, parse_settings
from shared_model.errors import SettingsError


def check_out(out: Path, *, resume: bool) -> None:
    """A launcher's folder is new or empty, or on resuming there; it is not a comparison's.

    Raises:
        SettingsError: it is not.
    """
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out at {out}: expected a folder, got a file.")
    if not resume and out.exists() and any(path.name not in LOCKS for path in out.iterdir()):
        raise SettingsError(
            f"--out at {out}: expected a new or empty folder, got one with files. Choose another, or --resume."
        )
    if resume and not out.is_dir():
        raise SettingsError(f"--resume at {out}: expected a run folder, got none.")
    if (out / COMPARISON_LOCK).exists():
        raise SettingsError(f"--resume at {out}: expected a run folder, got a comparison's. Give the run's.")


def refuse_second_run(folder: RunFolder) -> None:
    """The app's rule, who writes into a folder that its launcher has made: no run has begun there.

    Raises:
        SettingsError: one has.
    """
    if folder.read_json(CONFIG):
        raise SettingsError(f"{folder.path}: expected a new folder, got one with a run. Choose another, or resume it.")


def refuse_another_run(folder: RunFolder, settings: Settings, *, schema_sha256: str, launched: bool = False) -> None:
    """A folder's run, if one has begun, is of this schema and of these settings.

    Args:
        folder: of the run, finished or not.
        settings: of the run that is asked for.
        schema_sha256: of its schema.
        launched: `expected-sites` may differ: the app counts them, its launcher need not.

    Raises:
        SettingsError: it is not.
    """
    config = folder.read_json(CONFIG)
    if not config:
        return
    where = f"--resume at {folder.path}: expected the run's own"
    if config.get("schema_sha256") != schema_sha256:
        raise SettingsError(f"{where} schema, got another. Repeat the command of the run, or start a new one.")
    old = parse_settings(config.get("settings", {})).to_config()  # an older version's run has defaults for what is new
    new = {key: value for key, value in settings.to_config().items() if not (launched and key == "expected-sites")}
    if changed := sorted(key for key, value in new.items() if old[key] != value):
        raise SettingsError(
            f"{where} settings, got others for {', '.join(changed)}. Repeat the command of the run, or start a new one."
        )


def resumed_run_id(folder: RunFolder) -> str:
    """The id of the folder's run, under which hospitals keep what they keep of it; a new one where none has begun."""
    return str(folder.read_json(CONFIG).get("run_id") or secrets.token_hex(8))
