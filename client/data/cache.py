"""Keep decoded hospitals on disk, so that a second start decodes no image.

An entry is found by the content of every file that it came from, the schema and the version of the reader: whatever
changes, the entry no longer matches. Entries hold patient data: their folders are open to their owner only, and a new
entry of a hospital and schema removes the old one. Nothing is pickled.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from client.data.fingerprint import FileStamp, content_key, stamp_files
from client.data.hospital import HospitalData, Notes, list_used_files, read_hospital
from client.data.image_table import Progress
from client.data.problems import fault
from shared_model.errors import DataError, Problem, SiteError
from shared_model.patient_arrays import PatientArrays
from shared_model.process.files import replace_file
from shared_model.schema import STATIC, Schema

CACHE_VARIABLE = "HIPFED_CACHE"
_INDEX = "index.json"
_ENTRY = "entry.json"
_UNFINISHED = ".unfinished-"
_ABANDONED_S = 24 * 3600


def chosen_cache_dir() -> Path | None:
    """$HIPFED_CACHE; None if it is not set."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).absolute() if chosen else None


def cohort_cache_dir(cohort: Path) -> Path:
    """$HIPFED_CACHE, else a hidden folder beside the hospitals of a cohort."""
    return chosen_cache_dir() or cohort / ".hipfed-cache"


def load_hospital(folder: Path, schema: Schema, *, cache_dir: Path) -> PatientArrays:
    """The patients of a hospital, from the cache if its files have not changed; `raw` is memory-mapped.

    Args:
        folder: the hospital's folder.
        schema: the study.
        cache_dir: where decoded hospitals are kept; made if it does not exist.

    Raises:
        DataError: the folder breaks the data contract; holds every problem, and nothing was cached.
        SiteError: the cache folder cannot be written.
    """
    return open_hospital(folder, schema, cache_dir=cache_dir).arrays


def open_hospital(
    folder: Path,
    schema: Schema,
    *,
    cache_dir: Path | None,
    progress: Progress | None = None,
    with_outcome: bool = True,
) -> HospitalData:
    """As `load_hospital`, with the notes of the reading.

    Args:
        folder: the hospital's folder.
        schema: the study.
        cache_dir: where decoded hospitals are kept, made if it does not exist; None: nothing is kept.
        progress: told (done, in all) after each image that is decoded.
        with_outcome: as in `read_hospital`; where it is not needed, nothing is kept.

    Raises:
        DataError: the folder breaks the data contract, or changed while it was read.
        SiteError: the cache folder cannot be written.
    """
    root = folder.resolve()
    try:
        files = list_used_files(root, schema)
        if not files:
            return read_hospital(folder, schema, progress=progress, with_outcome=with_outcome)  # finds what is wrong
        if cache_dir is None or not with_outcome:
            stamps = stamp_files(root, files, known={})
            hospital = read_hospital(folder, schema, progress=progress, with_outcome=with_outcome)
            _refuse_changed(root, schema, files, stamps)
            return hospital
        return _open_known(root, schema, files, cache_dir=cache_dir, progress=progress)
    except FileNotFoundError as error:
        raise _changed(folder) from error
    except OSError as error:
        raise _unreadable(folder, error) from error


def _refuse_changed(root: Path, schema: Schema, files: list[Path], stamps: Mapping[str, FileStamp]) -> None:
    again = list_used_files(root, schema)
    now = stamp_files(root, files, known=stamps) if again == files else {}
    if again != files or content_key(schema, now) != content_key(schema, stamps):
        raise _changed(root)


def _open_known(
    root: Path, schema: Schema, files: list[Path], *, cache_dir: Path, progress: Progress | None
) -> HospitalData:
    shelf = cache_dir / hashlib.sha256(f"{root}\0{schema.sha256}".encode()).hexdigest()[:32]
    known = _read_index(shelf)
    stamps = stamp_files(root, files, known=known)
    key = content_key(schema, stamps)
    hospital = _load_entry(shelf / key, schema)
    if hospital is None:
        hospital = read_hospital(root, schema, progress=progress)
        _refuse_changed(root, schema, files, stamps)
        with _explained(cache_dir):
            _store_entry(cache_dir, shelf, key, hospital)
        hospital = _load_entry(shelf / key, schema) or hospital
    if stamps != known:
        with _explained(cache_dir):
            _write_index(shelf, stamps)
    return hospital


def _changed(folder: Path) -> DataError:
    remedy = "Wait for the export to end and run again"
    detail = fault(expected="files at rest", got="a change while they were read", remedy=remedy)
    return DataError([Problem(file=folder.name, row=0, column="", rule="changed-while-read", detail=detail)])


def _unreadable(folder: Path, error: OSError) -> DataError:
    got = f"{error.strerror} for {error.filename}"
    detail = fault(expected="readable files", got=got, remedy="Check the permissions")
    return DataError([Problem(file=folder.name, row=0, column="", rule="unreadable-file", detail=detail)])


@contextmanager
def _explained(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SiteError(
            f"cache at {cache_dir}: expected a folder that can be written, got: {error.strerror}. "
            "Make room there, or choose another folder with --cache or HIPFED_CACHE."
        ) from error


def _read_index(shelf: Path) -> dict[str, FileStamp]:
    """Stamps of the last start; a damaged index is as good as none, because every file is then hashed again."""
    try:
        stored = json.loads((shelf / _INDEX).read_text(encoding="utf-8"))
        return {name: FileStamp(**stamp) for name, stamp in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_index(shelf: Path, stamps: Mapping[str, FileStamp]) -> None:
    content = json.dumps({name: asdict(stamp) for name, stamp in stamps.items()})
    replace_file(shelf / _INDEX, content.encode(), mode=0o600)


def _arrays_by_file(arrays: PatientArrays) -> dict[str, np.ndarray]:
    return {
        "outcome": arrays.outcome,
        "numbers": arrays.numbers,
        "levels": arrays.levels,
        **{f"raw.{name}": values for name, values in arrays.raw.items()},
        **{f"present.{name}": values for name, values in arrays.present.items()},
    }


def _store_entry(cache_dir: Path, shelf: Path, key: str, hospital: HospitalData) -> None:
    cache_dir.parent.mkdir(parents=True, exist_ok=True)
    cache_dir.mkdir(mode=0o700, exist_ok=True)
    shelf.mkdir(mode=0o700, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=shelf, prefix=_UNFINISHED))  # mode 0700
    try:
        for name, values in _arrays_by_file(hospital.arrays).items():
            with (temporary / f"{name}.npy").open("wb") as file:
                np.save(file, values, allow_pickle=False)
                _flush(file.fileno())
        with (temporary / _ENTRY).open("w", encoding="utf-8") as text:
            json.dump({"patient_ids": hospital.arrays.patient_ids, "notes": asdict(hospital.notes)}, text)
            text.flush()
            _flush(text.fileno())
        with suppress(FileExistsError):
            _rename_folder(temporary, shelf / key)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _remove_old(shelf, keep=key)


def _flush(descriptor: int) -> None:
    """After a power cut an entry is whole or not there at all."""
    os.fsync(descriptor)


def _rename_folder(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError:
        if not target.is_dir():
            raise
        raise FileExistsError(target) from None  # another process stored the same content first


def _remove_old(shelf: Path, *, keep: str) -> None:
    for path in shelf.iterdir():
        unfinished = path.name.startswith(_UNFINISHED)
        if path.name in (keep, _INDEX) or (unfinished and time.time() - path.lstat().st_mtime < _ABANDONED_S):
            continue
        shutil.rmtree(path, ignore_errors=True)


def _load_entry(entry: Path, schema: Schema) -> HospitalData | None:
    """The stored hospital; None if there is none. A damaged entry is removed, since the files can be read again."""
    if not entry.is_dir():
        return None
    try:
        stored = json.loads((entry / _ENTRY).read_text(encoding="utf-8"))
        notes = stored["notes"]
        return HospitalData(
            arrays=_load_arrays(entry, schema, patient_ids=tuple(stored["patient_ids"])),
            notes=Notes(
                ignored_columns={table: tuple(columns) for table, columns in notes["ignored_columns"].items()},
                ignored_tables=tuple(notes["ignored_tables"]),
                shared_images=tuple(notes["shared_images"]),
                unnamed_images=tuple(notes["unnamed_images"]),
                empty_tables=tuple(notes["empty_tables"]),
            ),
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _load_arrays(entry: Path, schema: Schema, *, patient_ids: tuple[str, ...]) -> PatientArrays:
    def load(name: str, *, mapped: bool = False) -> np.ndarray:
        values: np.ndarray = np.load(entry / f"{name}.npy", mmap_mode="r" if mapped else None, allow_pickle=False)
        if len(values) != len(patient_ids):
            raise ValueError(f"{name}: expected {len(patient_ids)} patients, got {len(values)}")
        return values

    return PatientArrays(
        patient_ids=patient_ids,
        outcome=load("outcome"),
        numbers=load("numbers"),
        levels=load("levels"),
        raw={name: load(f"raw.{name}", mapped=True) for name in schema.modalities if name != STATIC},
        present={name: load(f"present.{name}") for name in schema.modalities},
    )
