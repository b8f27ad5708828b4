"""Checks before a run is launched: files named by full paths, and a folder fit to take the run."""

from collections.abc import Mapping
from pathlib import Path

from server.run_folder.folder import CONFIG, RunFolder, read_status
from server.run_folder.lock import COMPARISON_LOCK, LOCKS
from shared_model.config import Scalar, Settings, parse_settings
from shared_model.errors import SettingsError


def parse_plan(values: Mapping[str, Scalar]) -> Settings:
    """Settings whose file is named whatever the working directory: the app has another one.

    Raises:
        SettingsError: a setting is wrong, or the file does not exist.
    """
    settings = parse_settings(values)
    if not settings.image_weights:
        return settings
    weights = Path(settings.image_weights).expanduser().resolve()
    if not weights.is_file():
        raise SettingsError(f"image-weights: expected a file, got none at {weights}. Check the path.")
    return settings.model_copy(update={"image_weights": str(weights)})


def is_done(path: Path, settings: Settings, *, schema_sha256: str) -> bool:
    """True if the folder holds the finished run of these settings and this schema.

    Raises:
        SettingsError: it holds a run with others, finished or not.
    """
    config = RunFolder(path).read_json(CONFIG)
    old = config.get("settings")
    if config.get("schema_sha256", schema_sha256) != schema_sha256:
        raise SettingsError(
            f"--resume at {path}: expected the run's own schema, got another. Repeat the command of the run, or start "
            "a new one."
        )
    if old is not None:
        old = parse_settings(old).to_config()  # an older version's run has the defaults of what it did not know
        changed = sorted(k for k, v in settings.to_config().items() if k != "expected-sites" and old[k] != v)
        if changed:
            raise SettingsError(
                f"--resume at {path}: expected the run's own settings, got others for {', '.join(changed)}. "
                "Repeat the command of the run, or start a new one."
            )
    return read_status(path)[0] == "completed"


def check_out(out: Path, *, resume: bool) -> None:
    """A run folder is new or empty, or on resuming there.

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
