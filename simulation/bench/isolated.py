"""A measurement in a process of its own: its memory is its own, and a crash or an endless run is a result.

The process is started by its command and not by `multiprocessing`, which would load what the parent was started with:
for `hipfed-sim` that is all of Flower, and half a gigabyte.
"""

import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_TEXT = 1000  # characters of an error or a warning that are kept
_SERVE = "import sys; from simulation.bench.isolated import serve; serve(sys.argv[1])"


@dataclass(frozen=True)
class MeasurementOutcome:
    """What became of a measurement.

    Attributes:
        value: what the measured function returned; None if it failed.
        error: what happened instead; None if nothing did.
        warnings: texts of the warnings that were given, each once, in order.
        seconds: of the measured call alone; NaN if it failed.
        peak_mb: largest resident memory of the process, the preparation included; NaN if it crashed.
        prepared_mb: largest resident memory before the measured call; NaN if it was not reached.
    """

    value: Any
    error: str | None
    warnings: tuple[str, ...]
    seconds: float
    peak_mb: float
    prepared_mb: float


def run_isolated(prepare: Callable[..., Any], *arguments: Any, timeout_s: float) -> MeasurementOutcome:
    """Call what `prepare(*arguments)` returns, in a new Python process.

    Args:
        prepare: a function of a module; makes ready and returns the function to measure, which takes no arguments.
        arguments: for it; they are pickled, and so is the value.
        timeout_s: for both together, and for the start of the process.
    """
    with tempfile.TemporaryDirectory(prefix="hipfed-isolated-") as folder, tempfile.TemporaryFile() as said:
        work, result = Path(folder) / "work", Path(folder) / "result"
        work.write_bytes(pickle.dumps((prepare, arguments)))
        command = (sys.executable, "-c", _SERVE, folder)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as process:  # noqa: S603 - our own
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return _failed(f"timeout: no result after {timeout_s:g} s", peak_mb=peak_mb(process.pid))
            finally:
                process.kill()
        if not result.exists():
            said.seek(0)
            text = said.read().decode(errors="replace").strip()[-MOST_TEXT:]
            return _failed(f"crash: the process ended with {_ending(process.returncode)}. {text}".strip())
        outcome: MeasurementOutcome = pickle.loads(result.read_bytes())  # noqa: S301 - our own process wrote it
        return outcome


def serve(folder: str) -> None:
    """What the new process does: the work in the folder, whose result it leaves there."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value, error, seconds, prepared_mb = None, None, float("nan"), float("nan")
        try:
            prepare, arguments = pickle.loads((Path(folder) / "work").read_bytes())  # noqa: S301 - as above
            measured = prepare(*arguments)
            prepared_mb = peak_mb()
            start = time.perf_counter()
            value = measured()
            seconds = time.perf_counter() - start
        except Exception as problem:  # noqa: BLE001 - whatever a library raises is a result
            error = f"{type(problem).__name__}: {problem}"[:MOST_TEXT]
    said = dict.fromkeys(str(warning.message)[:MOST_TEXT] for warning in caught)
    outcome = MeasurementOutcome(value, error, tuple(said), seconds, peak_mb(), prepared_mb)
    (Path(folder) / "written").write_bytes(pickle.dumps(outcome))
    (Path(folder) / "written").rename(Path(folder) / "result")  # so a crash while writing leaves no result


def _failed(error: str, *, peak_mb: float = float("nan")) -> MeasurementOutcome:
    return MeasurementOutcome(None, error, (), float("nan"), peak_mb, float("nan"))


def _ending(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def peak_mb(process_id: int | None = None) -> float:
    """Largest resident memory of a process in MB (10^6 bytes), by default this one; NaN if it has ended.

    Linux keeps the high-water mark of the memory that a process has (VmHWM). Its `ru_maxrss` is no use here, because a
    new process inherits that of the one that started it. Elsewhere there is `ru_maxrss` only, in bytes on macOS.
    """
    if sys.platform == "linux":
        try:
            status = Path(f"/proc/{process_id or 'self'}/status").read_text(encoding="utf-8")
        except OSError:
            return float("nan")
        kilobytes = [float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
        return kilobytes[0] * 1024 / 1e6 if kilobytes else float("nan")
    if process_id is not None:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
