"""Checks before a run is launched: files named by full paths, and a run that is done already."""

from collections.abc import Mapping
from pathlib import Path

from server.run_folder.folder import RunFolder, read_status
from server.run_folder.same_run import refuse_another_run
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
    refuse_another_run(RunFolder(path), settings, schema_sha256=schema_sha256, launched=True)
    return read_status(path)[0] == "completed"
