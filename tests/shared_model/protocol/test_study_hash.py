import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_model.config import Scalar, Settings, parse_settings
from shared_model.errors import StudyFileError
from shared_model.protocol.study_hash import StudyFile, read_study, study_hash
from shared_model.schema import parse_schema
from tests.conftest import SMALL_STUDY

SCHEMA = parse_schema(SMALL_STUDY, source="schema.toml")
DEFAULTS = parse_settings({})


def _hash(settings: Settings = DEFAULTS, *, schema: str = "a" * 64, protocol: int = 3) -> str:
    return study_hash(schema_sha256=schema, settings=settings.to_config(), protocol=protocol)


def test_hash_is_that_of_the_sorted_json_of_the_study() -> None:
    # printf '%s' '{"protocol":3,"schema_sha256":"ab","settings":{"b":1,"\u00e9":0.5}}' | sha256sum
    found = study_hash(schema_sha256="ab", settings={"é": 0.5, "b": 1}, protocol=3)

    assert found == "90f53dab21f25ccc2b5c2fbc9c5d201ce13fc59e5648f7257259eab515929775"


@pytest.mark.parametrize("key", sorted(DEFAULTS.to_config()))
def test_hash_changes_with_every_setting(key: str) -> None:
    changed: dict[str, Scalar] = {**DEFAULTS.to_config()}
    value = changed[key]
    changed[key] = (not value) if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else "other"

    changed_hash = study_hash(schema_sha256="a" * 64, settings=changed, protocol=3)

    assert changed_hash != _hash()


def test_hash_changes_with_schema_and_protocol() -> None:
    assert len({_hash(), _hash(schema="b" * 64), _hash(protocol=4)}) == 3


def test_study_of_another_version_with_this_protocol_is_the_same_study(tmp_path: Path) -> None:
    file = StudyFile.of(SCHEMA, DEFAULTS, protocol=3).model_copy(update={"hipfed": "9.9"})
    path = tmp_path / "STUDY.json"
    path.write_text(file.to_json(), encoding="utf-8")

    assert read_study(path).sha256 == StudyFile.of(SCHEMA, DEFAULTS, protocol=3).sha256
    file.check_version(protocol=3)
    with pytest.raises(StudyFileError, match=r"expected one for protocol 4, .* got one for protocol 3 of hipfed 9\.9"):
        file.check_version(protocol=4)


def test_hash_is_the_same_whether_defaults_are_written_out_or_not() -> None:
    assert _hash(parse_settings({"seed": 3})) == _hash(parse_settings(parse_settings({"seed": 3}).to_config()))
    assert _hash(parse_settings({"learning-rate": 1})) == _hash(parse_settings({"learning-rate": "1.0"}))


@given(rate=st.floats(min_value=5e-324, max_value=1e308), strata=st.text(max_size=20))
def test_file_comes_back_with_the_same_hash(tmp_path_factory: pytest.TempPathFactory, rate: float, strata: str) -> None:
    path = tmp_path_factory.mktemp("study") / "STUDY.json"
    file = StudyFile.of(SCHEMA, parse_settings({"learning-rate": rate, "strata": strata}), protocol=3)
    path.write_text(file.to_json(), encoding="utf-8")

    back = read_study(path)

    assert back == file
    assert parse_settings(back.settings).learning_rate.hex() == rate.hex()


def test_file_says_which_settings_differ_from_the_defaults() -> None:
    file = StudyFile.of(SCHEMA, parse_settings({"seed": 3, "momentum": 0.5, "head": ""}), protocol=3)

    assert file.changed_settings() == {"seed": 3, "momentum": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "f" * 64}, "of its content, got ffffffffffff"),
        ({"protocol": 4}, "The file was changed by hand"),
        ({"hipfed": "<b>"}, "got faults at hipfed"),
        ({"format": 2}, "got faults at format"),
        ({"study": {}}, "got faults at study"),
        ({"extra": 1}, "got faults at extra"),
        ({"settings": {"seed": None}}, "got faults at settings.seed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_file_is_refused_when_something_was_changed(tmp_path: Path, change: dict[str, object], message: str) -> None:
    content = json.loads(StudyFile.of(SCHEMA, DEFAULTS, protocol=3).to_json())
    path = tmp_path / "STUDY.json"
    path.write_text(json.dumps(content | change))

    with pytest.raises(StudyFileError, match=message):
        read_study(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", None], ids=["empty", "cut", "list", "bytes", "none"])
def test_file_is_refused_when_it_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "STUDY.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(StudyFileError, match=r"STUDY\.json: expected a"):
        read_study(path)
