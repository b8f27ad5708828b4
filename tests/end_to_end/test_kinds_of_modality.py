"""Every study that the schema allows runs to its explanation, whichever kinds of modality it has."""

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path

import pandas as pd
import pytest

from server.run_folder.folder import RunFolder
from shared_model.config import Scalar
from tests.server.explained_study import read_explanations
from tests.server.small_cohort import (
    EVENTS_SCHEMA,
    IMAGE_SCHEMA,
    SERIES_SCHEMA,
    STATIC_SCHEMA,
    run_small_study,
    small_settings,
    write_small_cohort,
)

NUMBERS, _, _ = STATIC_SCHEMA.partition('[[static]]\nname = "asa"')
KINDS: Mapping[str, tuple[str, ...]] = {
    "static": ("static",),
    "series": ("vitals",),
    "events": ("drugs",),
    "images": ("hip",),
}
RECORDED = {"vitals": SERIES_SCHEMA, "drugs": EVENTS_SCHEMA, "hip": IMAGE_SCHEMA.format(name="hip")}
DEFAULTS: Mapping[str, Scalar] = {"strategy": "newton", "head": "", "adapt_penalty": True, "rounds_unimodal": 1}


def _subsets(names: Sequence[str], *, least: int) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, size) for size in range(least, len(names) + 1)))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hospitals that have everything; each third patient has films."""
    names = ("hip", "chest")
    cohort = write_small_cohort(
        tmp_path_factory.mktemp("kinds") / "cohort", series=True, images=True, image_names=names
    )
    for path in cohort.glob("*/images.csv"):
        table = pd.read_csv(path)
        table[table["patient_id"].isin(sorted(set(table["patient_id"]))[::3])].to_csv(path, index=False)
    return cohort


@pytest.fixture(scope="module")
def numbers_only(recordings: Path) -> Path:
    """The same with static numbers and no category: an encoder that has nothing to learn."""
    return _restrict(recordings, recordings.parent / "numbers", "".join((NUMBERS, *_schemas(("vitals", "drugs")))))


def _schemas(modalities: Sequence[str]) -> list[str]:
    images = [IMAGE_SCHEMA.format(name=name) for name in ("hip", "chest")]
    return [RECORDED[name] for name in modalities] + images


def _restrict(cohort: Path, out: Path, schema: str) -> Path:
    """The cohort under another schema, without the files of what it does not have."""
    shutil.copytree(cohort, out)
    (out / "schema.toml").write_text(schema, encoding="utf-8")
    for hospital in (path for path in out.iterdir() if path.is_dir()):
        for name in ("vitals", "drugs"):
            if f".{name}]" not in schema:
                (hospital / f"{name}.csv").unlink()
        table = pd.read_csv(hospital / "images.csv")
        kept = table[[f"[images.{name}]" in schema for name in table["image"]]]
        kept.to_csv(hospital / "images.csv", index=False)
        if kept.empty:
            (hospital / "images.csv").unlink()
    return out


def _run(cohort: Path, out: Path, **changes: Scalar) -> RunFolder:
    return run_small_study(cohort, out, settings=small_settings(**{**DEFAULTS, **changes}))


@pytest.mark.parametrize("kinds", _subsets(list(KINDS), least=1), ids="+".join)
def test_study_of_chosen_kinds_is_explained(numbers_only: Path, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    chosen = [name for kind in kinds for name in KINDS[kind]]

    explained = read_explanations(_run(numbers_only, tmp_path / "run", modalities=",".join(chosen)))

    assert list(explained["modalities"]) == chosen
    assert list(explained["features"]) == chosen
    assert explained["failed"] == {}


@pytest.mark.parametrize("kinds", _subsets(list(RECORDED), least=0), ids=lambda kinds: "+".join(("static", *kinds)))
def test_study_whose_schema_has_these_kinds_only_is_explained(
    recordings: Path, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    schema = STATIC_SCHEMA + "".join(RECORDED[name] for name in kinds)
    cohort = _restrict(recordings, tmp_path / "cohort", schema)

    explained = read_explanations(_run(cohort, tmp_path / "run"))

    assert list(explained["modalities"]) == ["static", *kinds]
    assert explained["failed"] == {}


@pytest.mark.parametrize(("modalities", "image_training"), [("hip,chest", "fixed"), ("static,chest", "trained")])
def test_study_of_films_without_vital_signs_is_explained_after_all_phases(
    numbers_only: Path, tmp_path: Path, modalities: str, image_training: str
) -> None:
    """In each phase other embeddings are kept, by encoders of which some have no weights."""
    folder = _run(numbers_only, tmp_path / "run", modalities=modalities, image_training=image_training, rounds_joint=1)

    assert list(read_explanations(folder)["modalities"]) == modalities.split(",")
