"""Files that a hospital keeps to save time: written whole or not at all, the oldest forgotten."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file that nobody else can read, in a folder made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary)
        Path(temporary).replace(path)
    except SafetensorError as error:  # its word for what the system says
        Path(temporary).unlink(missing_ok=True)
        raise OSError(_errno(error), str(error), str(path)) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _errno(error: SafetensorError) -> int:
    """The system's number in safetensors' text; EIO where there is none."""
    found = re.search(r"os error (\d+)", str(error))
    return int(found.group(1)) if found else errno.EIO


def forget_oldest(paths: Iterable[Path], *, keep: int) -> None:
    """Remove all but the `keep` files or folders that were touched last."""
    for path in sorted(paths, key=_last_touched, reverse=True)[keep:]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _last_touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process forgot it first
        return 0.0
