"""The studies that a hospital approved: a file that its worker reads at every question.

An entry holds the whole study beside its hash, so that the list can be read and an entry of which a part was changed is
noticed. The file's modes keep others from it; who can write it as its owner can approve.
"""

import getpass
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from shared_model import extensions
from shared_model.config import parse_settings
from shared_model.errors import ApprovalError, ExtensionError, SiteError, StudyFileError
from shared_model.process.files import replace_file
from shared_model.process.folder_lock import hold_lock
from shared_model.protocol.messages import PROTOCOL_VERSION
from shared_model.protocol.study_hash import SHOWN_DIGITS, StudyFile
from shared_model.version import own_version

APPROVALS_FILE = "approvals.json"
_LOCK = ".approvals.lock"


class Approval(BaseModel):
    """One approved study.

    Attributes:
        approved: when, in UTC.
        by: the user of the machine who said yes.
        study: what was approved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    approved: str
    by: str
    study: StudyFile


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    approvals: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Approvals:
    """The approvals of a hospital.

    Attributes:
        path: of the file; none there means that nothing is approved.
    """

    path: Path

    def read(self) -> tuple[Approval, ...]:
        """All that this installation can read, oldest first; a study of kinds of modality that it lacks is left out.

        Raises:
            SiteError: the file cannot be read, is open to others, or was damaged: then nothing is approved.
        """
        return tuple(approval for _, approval in self._read_entries() if approval is not None)

    def _read_entries(self) -> list[tuple[dict[str, Any], Approval | None]]:
        """Each entry as it stands in the file, and what it says."""
        try:
            with self.path.open(encoding="utf-8") as file:
                self._check_modes(os.fstat(file.fileno()))
                content = _Content.model_validate_json(file.read())
            return [(entry, self._read_entry(entry)) for entry in content.approvals]
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError, ValidationError, StudyFileError) as error:
            raise SiteError(
                f"{self.path}: expected the approvals that `hipfed-client approve` wrote, got: {_describe(error)}. "
                "Until this is mended no study is approved: remove the file and approve again."
            ) from error

    def _read_entry(self, entry: dict[str, Any]) -> Approval | None:
        if not _may_be_read(entry):
            return None
        approval = Approval.model_validate_json(json.dumps(entry))
        if approval.study.protocol == PROTOCOL_VERSION:  # no question has the hash of another
            approval.study.check(source=self.path.name)
        return approval

    def require(self, sha256: str) -> None:
        """The study is approved.

        Raises:
            ApprovalError: it is not.
            SiteError: the file cannot be trusted.
        """
        if not any(approval.study.sha256 == sha256 for approval in self.read()):
            raise ApprovalError(
                f"study {sha256[:SHOWN_DIGITS]} is not approved at this hospital; send it the file of `hipfed-server "
                "study`, to be approved with `hipfed-client approve`"
            )

    def add(self, study: StudyFile) -> bool:
        """Approve a study; False if it was approved before.

        Raises:
            ApprovalError: the study is for another protocol than this hospital's.
            SettingsError: its settings are wrong.
            SiteError: the file cannot be trusted or written.
            LockedError: another command changes it.
        """
        check_fit(study)
        with hold_lock(self.path.parent, _LOCK):
            known = self._read_entries()
            if any(approval and approval.study.sha256 == study.sha256 for _, approval in known):
                return False
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            new = Approval(approved=now, by=_user(), study=study)
            self._write([*(entry for entry, _ in known), new.model_dump(mode="json")])
        return True

    def withdraw(self, digits: str) -> StudyFile:
        """Take an approval back; a running worker refuses the study's next question.

        Args:
            digits: its hash, or the first `SHOWN_DIGITS` or more of it.

        Raises:
            ApprovalError: no approved study, or several, are meant.
            SiteError: the file cannot be trusted or written.
            LockedError: another command changes it.
        """
        with hold_lock(self.path.parent, _LOCK):
            known = self._read_entries()
            meant = [approval for _, approval in known if approval and approval.study.sha256.startswith(digits)]
            if len(meant) != 1 or len(digits) < SHOWN_DIGITS:
                raise ApprovalError(
                    f"hash: expected at least {SHOWN_DIGITS} digits of one approved study, got {digits!r}. "
                    "`hipfed-client approve --list` shows them."
                )
            self._write([entry for entry, approval in known if approval is not meant[0]])
        return meant[0].study

    def _check_modes(self, file: os.stat_result) -> None:
        if file.st_uid not in {os.geteuid(), 0} or stat.S_IMODE(file.st_mode) & 0o077:
            raise PermissionError(f"owner {file.st_uid}, mode {stat.S_IMODE(file.st_mode):04o}; others can change it")

    def _write(self, entries: Sequence[dict[str, Any]]) -> None:
        text = json.dumps(_Content(approvals=tuple(entries)).model_dump(mode="json"), indent=1, allow_nan=False)
        try:
            replace_file(self.path, (text + "\n").encode(), mode=0o600)
        except OSError as error:
            raise SiteError(
                f"{self.path}: expected a file that can be written, got: {error.strerror}. Nothing was changed; make "
                "room, or use the account that owns it."
            ) from error


def check_fit(study: StudyFile) -> None:
    """The study is one that this hospital's version can run: others never have the hash of a question here.

    Raises:
        ApprovalError: another protocol, or settings that are not complete.
        SettingsError: settings that are wrong.
    """
    what = f"study {study.sha256[:SHOWN_DIGITS]}"
    if study.protocol != PROTOCOL_VERSION:
        raise ApprovalError(
            f"{what}: expected one for protocol {PROTOCOL_VERSION}, which this hospital's hipfed {own_version()} has, "
            f"got one for protocol {study.protocol} of hipfed {study.hipfed}. Install that version, or ask the "
            "coordinator for a new file."
        )
    settings = parse_settings(study.settings)
    if settings.to_config() != study.settings:
        raise ApprovalError(f"{what}: expected every setting, got some. Ask the coordinator for a new file.")
    settings.chosen_modalities(study.study)


def _may_be_read(entry: Mapping[str, Any]) -> bool:
    """True unless the study has kinds of modality whose packages are not installed, or cannot be imported."""
    study = entry.get("study")
    schema = study.get("study") if isinstance(study, dict) else None
    further = schema.get("further", {}) if isinstance(schema, dict) else {}
    try:
        for kind in further if isinstance(further, dict) else ():
            extensions.load(extensions.MODALITIES, kind)
    except ExtensionError:
        return False
    return True


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"{error.error_count()} faults in its content"
    return str(error)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
