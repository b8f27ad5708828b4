"""The folder of decoded patients for `explain` and `viewer`: the hospital's own, or none."""

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from client.data import chosen_cache_dir
from client.home import HospitalHome


@contextmanager
def decoded_data(cache: Path | None, *, data: Path, home: Path) -> Iterator[Path]:
    """A folder for decoded patients while a command runs.

    It is the one that was chosen, else that of the hospital's home, else a temporary one that is gone afterwards, also
    where Ctrl-C or SIGTERM ends the command.

    Args:
        cache: of --cache.
        data: the hospital's folder.
        home: where its home may be; it counts if its hospital.toml names this folder.

    Raises:
        SettingsError: hospital.toml is wrong.
        KeyFileError: somebody else may change what is in the home.
    """
    kept = cache or chosen_cache_dir() or _cache_of(HospitalHome(home.absolute()), data)
    if kept is not None:
        yield kept.absolute()
        return
    with _signals_unwind(), tempfile.TemporaryDirectory(prefix="hipfed-patients-") as folder:
        yield Path(folder)


def _cache_of(home: HospitalHome, data: Path) -> Path | None:
    if not home.settings_file.is_file():
        return None
    settings = home.read_settings()
    return Path(settings.cache) if Path(settings.data).resolve() == data.resolve() else None


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Let the signals that end a process at once end it through its `finally` clauses."""
    ending = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, _end) for number in ending if signal.getsignal(number) is signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(128 + number)
