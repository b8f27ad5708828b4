"""Small typed settings files in TOML, one for each side's home folder."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from shared_model.errors import SettingsError

Content = TypeVar("Content", bound=BaseModel)


def read_toml(path: Path, kind: type[Content], *, remedy: str) -> Content:
    """Settings from a file.

    Args:
        path: the file.
        kind: what it must hold.
        remedy: what to do where it is missing.

    Raises:
        SettingsError: it is missing, or not what it should be; the message lists every fault.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: expected a settings file, got: {error.strerror}. {remedy}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: expected TOML, got: {error}. Mend that place.") from error
    return checked(content, kind, source=str(path))


def checked(content: Mapping[str, object], kind: type[Content], *, source: str) -> Content:
    """Settings from a mapping.

    Args:
        content: from a file or a command line.
        kind: what it must hold.
        source: where it comes from, for the error.

    Raises:
        SettingsError: it is not what it should be; the message lists every fault.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = (
            f"{source}, {'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}, "
            f"got {fault['input']!r}."
            if fault["loc"]
            else f"{source}, {fault['msg'].removeprefix('Value error, ')}"  # of several fields: it names them
            for fault in error.errors(include_url=False)
        )
        raise SettingsError("\n".join(faults)) from error


def toml_bytes(content: Mapping[str, str | int | Sequence[str]]) -> bytes:
    """A flat TOML document; strings may hold anything that can be printed.

    Raises:
        SettingsError: a string holds what cannot be printed.
    """
    return "".join(f"{key} = {_toml(key, value)}\n" for key, value in content.items()).encode()


def _toml(key: str, value: str | int | Sequence[str]) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        if not value.isprintable():
            raise SettingsError(f"{key}: expected text that can be printed, got {value!r}. Choose another.")
        return json.dumps(value, ensure_ascii=False)
    return f"[{', '.join(_toml(key, one) for one in value)}]"
