from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from client.data import chosen_cache_dir, cohort_cache_dir, image_table, is_hospital, load_hospital, open_hospital
from client.data import fingerprint as fingerprint_module
from client.data.gray_image import FittedImage
from client.data.images import read_image
from shared_model.errors import DataError, SiteError
from shared_model.schema import parse_schema
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Barrier

    from tests.client.conftest import SmallHospital


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "made" / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the image files that were decoded."""
    names: list[str] = []

    def spy(path: Path, *, size: int) -> FittedImage:
        names.append(path.name)
        return read_image(path, size=size)

    monkeypatch.setattr(image_table, "read_image", spy)
    return names


def _entries(cache_dir: Path) -> list[Path]:
    return sorted(path.parent for path in cache_dir.rglob("entry.json"))


def _keep_times(path: Path, write: Callable[[], object]) -> None:
    before = path.stat()
    write()
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_load_hospital_decodes_no_image_on_the_second_start(
    hospital: SmallHospital, cache_dir: Path, decoded: list[str]
) -> None:
    first = load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)
    assert sorted(decoded) == ["p1-chest.png", "p1-hip.png", "p2-hip.png"]
    decoded.clear()

    second = load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)

    assert decoded == []
    assert second.patient_ids == first.patient_ids
    for name in ("outcome", "numbers", "levels"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
    for name in ("raw", "present"):
        assert getattr(second, name).keys() == getattr(first, name).keys()
        for key, values in getattr(first, name).items():
            np.testing.assert_array_equal(getattr(second, name)[key], values)


def test_load_hospital_maps_series_and_images_instead_of_holding_them(hospital: SmallHospital, cache_dir: Path) -> None:
    for _ in range(2):
        arrays = load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)
        assert isinstance(arrays.raw["vitals"], np.memmap)
        assert isinstance(arrays.raw["hip"], np.memmap)
        assert not arrays.raw["hip"].flags.writeable


def test_open_hospital_remembers_the_notes(hospital: SmallHospital, cache_dir: Path) -> None:
    first, second = (open_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir).notes for _ in range(2))

    assert first == second
    assert second.ignored_columns == {"patients": ("ward",)}


def test_load_hospital_sees_a_table_that_changed_in_place(hospital: SmallHospital, cache_dir: Path) -> None:
    load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)
    patients = hospital.folder / "patients.csv"
    _keep_times(patients, lambda: hospital.edit("patients.csv", "P1,0,81", "P1,0,82"))

    assert load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir).numbers[0, 0] == 82


def test_load_hospital_sees_an_old_image_that_changed_in_place(
    hospital: SmallHospital, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and modification time stay, and the stamp of the first start is trusted: the change time gives it away."""
    monkeypatch.setattr(fingerprint_module, "_SETTLED_NS", -1)
    path = hospital.folder / "images" / "p1-hip.bmp.png"
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path, compress_level=0)
    hospital.edit("images.csv", "p1-hip.png", "p1-hip.bmp.png")
    first = np.array(load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir).raw["hip"][0])
    time.sleep(0.05)  # the clock of the file system ticks every few milliseconds
    upside_down = Image.fromarray(np.arange(256, dtype=np.uint8)[::-1].reshape(16, 16))
    _keep_times(path, lambda: upside_down.save(path, compress_level=0))

    second = load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir).raw["hip"][0]

    np.testing.assert_array_equal(second, first[::-1, ::-1])


def test_load_hospital_hashes_a_settled_file_once(
    hospital: SmallHospital, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = time.time() - 3600
    monkeypatch.setattr(fingerprint_module, "_SETTLED_NS", -1)
    for path in hospital.folder.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)

    def refuse(*_: object) -> None:
        raise AssertionError("a file was hashed again")

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    assert len(load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)) == 4


def test_load_hospital_trusts_no_stamp_of_a_file_that_was_just_written(
    hospital: SmallHospital, cache_dir: Path
) -> None:
    load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)

    [index] = cache_dir.rglob("index.json")
    assert {stamp["inode"] for stamp in json.loads(index.read_text()).values()} == {-1}


def test_load_hospital_reads_again_for_another_schema(hospital: SmallHospital, cache_dir: Path) -> None:
    other = parse_schema(
        (hospital.folder / "schema.toml").read_text().replace("size = 48", "size = 64"), source="schema.toml"
    )
    load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)

    assert load_hospital(hospital.folder, other, cache_dir=cache_dir).raw["hip"].shape == (4, 64, 64)
    assert len(_entries(cache_dir)) == 2


def test_load_hospital_keeps_one_entry_of_a_hospital_and_schema(hospital: SmallHospital, cache_dir: Path) -> None:
    load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)
    [old] = _entries(cache_dir)
    hospital.edit("patients.csv", "P1,0,81", "P1,0,82")
    load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)

    [new] = _entries(cache_dir)
    assert new != old


def test_load_hospital_writes_nothing_when_the_folder_is_refused(hospital: SmallHospital, cache_dir: Path) -> None:
    hospital.edit("patients.csv", "P1,0,81", "P1,0,810")

    with pytest.raises(DataError):
        load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)
    assert not cache_dir.exists()


def test_load_hospital_still_refuses_a_path_that_now_leaves_the_folder(
    hospital: SmallHospital, cache_dir: Path, tmp_path: Path
) -> None:
    load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)
    image = hospital.folder / "images" / "p1-hip.png"
    image.rename(tmp_path / "moved.png")
    image.symlink_to(tmp_path / "moved.png")

    with pytest.raises(DataError, match="path-leaves-folder"):
        load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)


def test_load_hospital_opens_its_folders_to_the_owner_only(hospital: SmallHospital, cache_dir: Path) -> None:
    load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)

    [entry] = _entries(cache_dir)
    assert {path.stat().st_mode & 0o777 for path in (cache_dir, entry.parent, entry)} == {0o700}


@pytest.mark.parametrize("name", ["entry.json", "numbers.npy", "raw.hip.npy"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x93NUMPY garbage"])
def test_load_hospital_reads_again_when_an_entry_is_damaged(
    hospital: SmallHospital, cache_dir: Path, name: str, content: bytes
) -> None:
    load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)
    [entry] = _entries(cache_dir)
    (entry / name).write_bytes(content)
    next(cache_dir.rglob("index.json")).write_bytes(content)

    assert load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir).raw["hip"].shape == (4, 48, 48)
    assert _entries(cache_dir) == [entry]
    assert (entry / name).read_bytes() != content


def test_load_hospital_loads_no_pickle(hospital: SmallHospital, cache_dir: Path) -> None:
    load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)
    [entry] = _entries(cache_dir)
    np.save(entry / "numbers.npy", np.array([object()] * 4), allow_pickle=True)

    assert load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir).numbers.dtype == np.float64


def test_load_hospital_explains_a_cache_that_cannot_be_written(hospital: SmallHospital, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SiteError, match="--cache"):
        load_hospital(hospital.folder, hospital.schema, cache_dir=tmp_path / "file")


def test_load_hospital_refuses_files_that_change_while_they_are_read(
    hospital: SmallHospital, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meddle(path: Path, *, size: int) -> FittedImage:
        hospital.write("patients.csv", (hospital.folder / "patients.csv").read_text() + "P9,1,50,1,1,1,east\n")
        monkeypatch.setattr(image_table, "read_image", read_image)
        return read_image(path, size=size)

    monkeypatch.setattr(image_table, "read_image", meddle)
    with pytest.raises(DataError, match="changed-while-read"):
        load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)
    assert not cache_dir.exists()


def _load_when_all_are_ready(
    hospital: SmallHospital, cache_dir: Path, ready: Barrier, answers: SimpleQueue[float]
) -> None:
    ready.wait(timeout=PATIENCE_S)
    images = [load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir).raw["hip"] for _ in range(3)]
    answers.put(float(sum(image.sum(dtype=float) for image in images)))


def test_load_hospital_serves_four_processes_at_the_same_time(hospital: SmallHospital, cache_dir: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, answers = context.Barrier(4), context.SimpleQueue()
    arguments = (hospital, cache_dir, ready, answers)
    processes = [context.Process(target=_load_when_all_are_ready, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=PATIENCE_S)

    assert [process.exitcode for process in processes] == [0] * 4
    assert len({answers.get() for _ in processes}) == 1
    assert len(_entries(cache_dir)) == 1
    assert not list(cache_dir.rglob(".unfinished-*"))


def test_cache_is_where_the_environment_says_else_beside_the_cohort(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HIPFED_CACHE", str(tmp_path))
    assert chosen_cache_dir() == cohort_cache_dir(Path("cohort")) == tmp_path
    monkeypatch.delenv("HIPFED_CACHE")
    assert chosen_cache_dir() is None
    assert cohort_cache_dir(tmp_path) == tmp_path / ".hipfed-cache"


def test_open_hospital_writes_nothing_without_a_cache(hospital: SmallHospital) -> None:
    before = sorted(hospital.folder.parent.rglob("*"))

    kept = open_hospital(hospital.folder, hospital.schema, cache_dir=None)

    assert len(kept.arrays) == 4
    assert sorted(hospital.folder.parent.rglob("*")) == before


def test_load_hospital_names_a_folder_without_permission(
    hospital: SmallHospital, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(DataError, match=r"unreadable-file.*Permission denied"):
        load_hospital(hospital.folder, hospital.schema, cache_dir=cache_dir)
    assert not is_hospital(hospital.folder)
