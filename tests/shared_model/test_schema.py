from pathlib import Path

import pytest

from shared_model.errors import SchemaError
from shared_model.schema import Schema, load_schema, parse_schema

STUDY = """
[study]
name = "hip"
title = "Hip fractures"
outcome = "died"
patient_id = "pid"
"""
AGE = """
[[static]]
name = "age"
kind = "numeric"
unit = "years"
range = [18, 110]
"""
MALE = """
[[static]]
name = "male"
kind = "binary"
"""
ASA = """
[[static]]
name = "asa"
kind = "categorical"
levels = ["1", "2"]
"""
HIP = """
[images.hip]
size = 64
"""
DRUGS = """
[events.drugs]
aggregate = "any"
items = ["opioid", "insulin"]
recorded = "drugs_recorded"
"""
VITALS = """
[series.vitals]
time_unit = "min"
step = 5
steps = 12

[[series.vitals.channels]]
name = "hr"
unit = "/min"
range = [0, 350]
"""
WHOLE = STUDY + ASA + AGE + HIP + DRUGS + VITALS + MALE


def parse(text: str) -> Schema:
    return parse_schema(text, source="schema.toml")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(STUDY + AGE + AGE, "duplicate static column: age", id="column twice"),
        pytest.param(STUDY + AGE + VITALS + HIP.replace("hip", "vitals"), "duplicate modality: vitals", id="modality"),
        pytest.param(STUDY + AGE + HIP.replace("hip", "static"), "duplicate modality: static", id="named static"),
        pytest.param(STUDY + AGE + DRUGS.replace("drugs]", "patients]"), "duplicate modality: patients", id="file"),
        pytest.param(
            STUDY + AGE + VITALS + '[[series.vitals.channels]]\nname = "hr"\nrange = [0, 1]',
            "duplicate channel of vitals: hr",
            id="channel twice",
        ),
        pytest.param(
            STUDY + AGE + DRUGS.replace('"insulin"', '"opioid"'), "duplicate item of drugs: opioid", id="item twice"
        ),
        pytest.param(STUDY + ASA.replace('"2"', '"1"'), "static asa: a level is listed twice", id="level twice"),
    ],
)
def test_schema_is_refused_when_a_name_is_used_twice(text: str, fault: str) -> None:
    with pytest.raises(SchemaError, match=fault):
        parse(text)


@pytest.mark.parametrize(
    ("column", "fault"),
    [
        pytest.param(AGE.replace('"numeric"', '"ordinal"'), "static.0.kind: Input should be", id="unknown kind"),
        pytest.param(AGE.replace("range = [18, 110]", ""), "static age: a numeric column needs range", id="no range"),
        pytest.param(AGE.replace("[18, 110]", "[110, 18]"), r"range of age: expected \[lo, hi\]", id="range reversed"),
        pytest.param(AGE.replace("[18, 110]", "[18, 18]"), r"range of age: expected \[lo, hi\]", id="range of a point"),
        pytest.param(AGE.replace("110", "inf"), "static.0.range.1: Input should be a finite number", id="infinite"),
        pytest.param(AGE + 'levels = ["a"]', "static age: levels = .* belong to categorical", id="numeric levels"),
        pytest.param(MALE + "range = [0, 1]", "static male: range belongs to numeric", id="binary range"),
        pytest.param(ASA.replace('levels = ["1", "2"]', ""), "static asa: levels = .* belong", id="no levels"),
        pytest.param(
            AGE.replace('"age"', '"age in years"'), "static.0.name: String should match", id="name with space"
        ),
    ],
)
def test_schema_is_refused_when_a_column_does_not_fit_its_kind(column: str, fault: str) -> None:
    with pytest.raises(SchemaError, match=fault):
        parse(STUDY + column)


@pytest.mark.parametrize("role", ["outcome", "patient_id"])
def test_schema_is_refused_when_a_predictor_gives_the_study_away(role: str) -> None:
    name = {"outcome": "died", "patient_id": "pid"}[role]
    with pytest.raises(SchemaError, match=f"study.{role}: column {name} is also a static predictor"):
        parse(STUDY + AGE + MALE.replace("male", name))


def test_schema_is_refused_when_outcome_and_patient_id_are_one_column() -> None:
    with pytest.raises(SchemaError, match="name the same column"):
        parse(STUDY.replace('"died"', '"pid"') + AGE)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param(WHOLE + 'colour = "red"', "static.2.colour", id="column"),
        pytest.param(WHOLE.replace("size = 64", "size = 64\ndepth = 8"), "images.hip.depth", id="image"),
    ],
)
def test_schema_is_refused_when_it_has_an_unknown_key(text: str, place: str) -> None:
    with pytest.raises(SchemaError, match=f"schema.toml: {place}: Extra inputs are not permitted"):
        parse(text)


def test_schema_is_refused_when_it_has_a_section_of_no_kind_of_modality() -> None:
    with pytest.raises(
        SchemaError, match=r"section 'server': expected a kind of modality that is installed \(static, "
    ):
        parse("[server]\nport = 1\n" + WHOLE)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("steps = 12", "steps = 0", "series.vitals.steps"),
        ("step = 5", "step = 0", "series.vitals.step"),
        ("size = 64", "size = 32", "images.hip.size"),
        ("size = 64", "size = 1025", "images.hip.size"),
        ('aggregate = "any"', 'aggregate = "all"', "events.drugs.aggregate"),
        ('items = ["opioid", "insulin"]', "items = []", "events.drugs.items"),
    ],
)
def test_schema_is_refused_when_a_modality_is_out_of_range(old: str, new: str, place: str) -> None:
    assert old in WHOLE
    with pytest.raises(SchemaError, match=f"schema.toml: {place}: "):
        parse(WHOLE.replace(old, new))


@pytest.mark.parametrize("further", ["further = 5", "further = [1]", "[further.series.x]\nstep = 5"])
def test_schema_is_refused_when_further_is_no_section_of_a_package(further: str) -> None:
    text = f"{further}\n{WHOLE}" if further.startswith("further") else f"{WHOLE}\n{further}"

    with pytest.raises(SchemaError, match="further: expected sections of kinds that packages add"):
        parse_schema(text, source="schema.toml")


def test_schema_is_refused_when_it_is_not_toml() -> None:
    with pytest.raises(SchemaError, match=r"schema.toml: expected TOML, got: .*line 2"):
        parse('[study]\nname = "hip\n')


def test_schema_is_refused_when_no_static_column_is_left() -> None:
    with pytest.raises(SchemaError, match=r"schema\.toml: static: "):
        parse(STUDY)


def test_schema_error_lists_every_fault() -> None:
    text = WHOLE.replace("size = 64", "size = 1").replace("step = 5", "step = 0").replace('"any"', '"no"')
    with pytest.raises(SchemaError) as raised:
        parse(text)
    faults = str(raised.value).splitlines()
    assert [fault.split(": ")[1] for fault in faults] == [
        "series.vitals.step",
        "events.drugs.aggregate",
        "images.hip.size",
    ]


def test_schema_file_is_refused_when_it_is_missing_or_no_text(tmp_path: Path) -> None:
    binary = tmp_path / "schema.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (binary, tmp_path / "absent.toml"):
        with pytest.raises(SchemaError, match="expected a readable UTF-8 file"):
            load_schema(path)


def test_schema_file_equals_its_text(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    path.write_text(WHOLE, encoding="utf-8")
    assert load_schema(path) == parse(WHOLE)


def test_modalities_come_as_static_series_events_images_whatever_the_order_of_the_file() -> None:
    assert parse(WHOLE).modalities == ("static", "vitals", "drugs", "hip")


def test_columns_are_told_apart_by_kind_in_the_order_of_the_file() -> None:
    schema = parse(WHOLE)
    assert [column.name for column in schema.numbers] == ["age", "male"]
    assert [column.name for column in schema.categories] == ["asa"]


def test_series_starts_at_zero_when_no_start_is_given() -> None:
    assert parse(WHOLE).series["vitals"].start == 0


def test_hash_ignores_comments_and_spacing() -> None:
    commented = "# a study\n" + WHOLE.replace("size = 64", "size   =   64   # pixels\n")
    assert parse(commented).sha256 == parse(WHOLE).sha256


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("size = 64", "size = 65"),
        ('unit = "years"', 'unit = "months"'),
        ('levels = ["1", "2"]', 'levels = ["2", "1"]'),
        ("range = [18, 110]", "range = [18, 111]"),
        ('recorded = "drugs_recorded"', ""),
    ],
)
def test_hash_differs_when_the_content_differs(old: str, new: str) -> None:
    assert old in WHOLE
    assert parse(WHOLE.replace(old, new)).sha256 != parse(WHOLE).sha256


def test_hash_stays_that_of_schemas_from_before_several_images_could_be_counted() -> None:
    before = "97c3e6ee3558fa6b6301c75d58bf2c39f38a024da58731974e97478aa5340075"

    assert parse(WHOLE).sha256 == before
    assert parse(WHOLE.replace("size = 64", 'size = 64\nseveral = "refuse"')).sha256 == before


@pytest.mark.parametrize("several", ["first", "last"])
def test_hash_tells_which_of_several_images_counts(several: str) -> None:
    schema = parse(WHOLE.replace("size = 64", f'size = 64\nseveral = "{several}"'))

    assert schema.images["hip"].several == several
    assert schema.sha256 != parse(WHOLE).sha256


def test_schema_is_refused_when_several_is_no_rule() -> None:
    with pytest.raises(SchemaError, match=r"images\.hip\.several"):
        parse(WHOLE.replace("size = 64", 'size = 64\nseveral = "best"'))


@pytest.mark.parametrize("name", ["numbers", "levels"])
def test_schema_is_refused_when_a_modality_is_named_as_the_sums_of_static_columns(name: str) -> None:
    with pytest.raises(SchemaError, match=f"duplicate modality: {name}"):
        parse(STUDY + AGE + VITALS.replace("vitals", name))


@pytest.mark.parametrize("column", ["died", "pid"])
def test_schema_is_refused_when_an_event_set_is_recorded_by_the_outcome_or_the_id(column: str) -> None:
    with pytest.raises(SchemaError, match=f"events.drugs.recorded: column {column} is the outcome or the patient id"):
        parse(STUDY + AGE + DRUGS.replace("drugs_recorded", column))


@pytest.mark.parametrize("name", ["time", "pid"])
def test_schema_is_refused_when_a_channel_is_named_as_another_column_of_the_series(name: str) -> None:
    with pytest.raises(SchemaError, match=f"duplicate channel of vitals: {name}"):
        parse(STUDY + AGE + VITALS.replace('name = "hr"', f'name = "{name}"'))
