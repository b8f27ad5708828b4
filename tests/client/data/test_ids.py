"""Ids of text tables, and ids that look the same in two tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from client.data import read_hospital
from client.data.hospital import list_patient_images
from shared_model.errors import DataError, Problem
from shared_model.schema import load_schema

if TYPE_CHECKING:
    from tests.client.conftest import SmallHospital

NFC, NFD = "Zo\u00eb", "Zoe\u0308"


def _patients(hospital: SmallHospital, *ids: str, vitals: str = "") -> None:
    for name in ("drugs.csv", "procedures.csv", "images.csv"):
        (hospital.folder / name).unlink(missing_ok=True)
    rows = "".join(f"{_quoted(one)},{number % 2},80,1,1\n" for number, one in enumerate(ids))
    hospital.write("patients.csv", "patient_id,died,age,male,asa\n" + rows)
    hospital.write("vitals.csv", f"patient_id,time,hr,spo2\n{_quoted(vitals or ids[0])},0,61,\n")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _problems(hospital: SmallHospital) -> tuple[Problem, ...]:
    with pytest.raises(DataError) as refused:
        read_hospital(hospital.folder, hospital.schema)
    return refused.value.problems


@pytest.mark.parametrize(
    ("ids", "other"),
    [
        (("20230000", "b"), "20230000.0"),
        (("20230000.00", "b"), "20230000"),
        ((NFC, "b"), NFD),
        (("a", "b"), "\ufeffa"),
        (("a", "b"), "a\u200b"),
        (("a", "b"), "\u2060a\u00ad"),
        (("a b", "b"), "a\u00a0b"),
        (("a b", "b"), "\u3000a\u2009b "),
        (("12E3", "b"), "12E3"),
    ],
)
def test_ids_that_are_the_same_match(hospital: SmallHospital, ids: tuple[str, ...], other: str) -> None:
    _patients(hospital, *ids, vitals=other)

    assert read_hospital(hospital.folder, hospital.schema).arrays.raw["vitals"][0, 0, 0] == 61


@pytest.mark.parametrize("pair", [(NFC, NFD), ("a", "a\u200b"), ("a", "\ufeffa"), ("a", "a\u00a0"), ("7", "7.0")])
def test_ids_that_are_the_same_are_found_as_duplicates(hospital: SmallHospital, pair: tuple[str, str]) -> None:
    _patients(hospital, *pair)

    [problem] = _problems(hospital)
    assert (problem.row, problem.rule) == (3, "duplicate-id")
    assert "(as in row 2)" in problem.detail
    assert all(letter.isascii() or letter == "\u00eb" for letter in problem.detail)


@pytest.mark.parametrize(
    ("ids", "other", "hint"),
    [
        (("007", "8"), "7", "zeros in front count"),
        (("7", "8"), "007", "zeros in front count"),
        (("P1", "P2"), "p1", "capitals and spaces count"),
        (("P1", "P2"), "\u04201", "U+0420 CYRILLIC CAPITAL LETTER ER"),
        (("\u04201", "P2"), "P1", "U+0420 CYRILLIC CAPITAL LETTER ER"),
        (("A-1", "P2"), "A\u20131", "U+2013 EN DASH"),
    ],
)
def test_an_unknown_id_that_looks_like_a_known_one_says_where_they_differ(
    hospital: SmallHospital, ids: tuple[str, ...], other: str, hint: str
) -> None:
    _patients(hospital, *ids, vitals=other)

    [problem] = _problems(hospital)
    assert (problem.file, problem.rule) == ("vitals.csv", "unknown-patient")
    assert hint in problem.detail


@pytest.mark.parametrize(
    ("ids", "rule"),
    [
        (("2.023e7", "b"), "inexact-id"),
        (("2.02E+07", "b"), "inexact-id"),
        (("2e7", "20230001"), "inexact-id"),
        (("9007199254740992.0", "b"), "inexact-id"),
        (("nan", "b"), "empty-id"),
        (("#N/A", "b"), "empty-id"),
    ],
)
def test_an_id_that_lost_its_digits_is_the_only_fault(hospital: SmallHospital, ids: tuple[str, ...], rule: str) -> None:
    _patients(hospital, *ids, vitals="b" if rule == "empty-id" else "20230000")
    if rule == "empty-id":
        hospital.write("vitals.csv", "patient_id,time,hr,spo2\nb,0,61,\n")

    assert [(problem.file, problem.rule) for problem in _problems(hospital)] == [("patients.csv", rule)]


@pytest.mark.parametrize(
    ("text", "rule", "what"),
    [
        ("a\x07b", "unfit-id", "with U+0007"),
        ("a\nb", "unfit-id", "with a line break"),
        ("a\tb", "unfit-id", "with a tab"),
        ("a\x85b", "unfit-id", "with U+0085"),
        ("a\u2028b", "unfit-id", "with U+2028"),
        ("a\ue000b", "unfit-id", "with U+E000"),
        ('a"b', "unfit-id", "with a quotation mark"),
        ("\u201eab\u201c", "unfit-id", "with a quotation mark"),
        ("'ab'", "unfit-id", "with a quotation mark"),
        ('="000"', "text-mark", "a spreadsheet's mark for text"),
        ("'000", "text-mark", "a spreadsheet's mark for text"),
        ("\u2019000", "text-mark", "a spreadsheet's mark for text"),
        ("=A1", "formula", "a formula"),
    ],
)
def test_an_id_that_smuggles_something_in_is_refused_with_its_cause_in_every_table(
    hospital: SmallHospital, text: str, rule: str, what: str
) -> None:
    _patients(hospital, "b", text, vitals=text)

    problems = _problems(hospital)
    assert [(problem.file, problem.row, problem.column, problem.rule) for problem in problems] == [
        ("patients.csv", 3, "patient_id", rule),
        ("vitals.csv", 2, "patient_id", rule),
    ]
    assert all(f"({what})" in problem.detail for problem in problems)
    assert all(problem.detail.isprintable() for problem in problems)


@pytest.mark.parametrize("text", ["O'Brien", "A-1/2", "Zo\u00eb 7", "\u60a3\u80057", "1.5", "(7)", "#7", "-3"])
def test_an_id_of_printable_characters_is_an_id(hospital: SmallHospital, text: str) -> None:
    _patients(hospital, "b", text, vitals=text)

    assert read_hospital(hospital.folder, hospital.schema).arrays.patient_ids == ("b", text)


@pytest.mark.parametrize(
    ("one", "other", "letter"),
    [
        ("12", "\uff11\uff12", "U+FF11 FULLWIDTH DIGIT ONE"),
        ("12", "\u0661\u0662", "U+0661 ARABIC-INDIC DIGIT ONE"),
        ("A-1", "A\u20131", "U+2013 EN DASH"),
        ("A\u20111", "A\u22121", "U+2011 NON-BREAKING HYPHEN"),
        ("A1", "\u04101", "U+0410 CYRILLIC CAPITAL LETTER A"),
        ("fix", "\ufb01x", "U+FB01 LATIN SMALL LIGATURE FI"),
    ],
)
def test_two_ids_that_are_drawn_alike_are_told_as_one_patient(
    hospital: SmallHospital, one: str, other: str, letter: str
) -> None:
    _patients(hospital, "b", one, other)

    [problem] = _problems(hospital)
    assert (problem.row, problem.column, problem.rule) == (4, "patient_id", "look-alike-id")
    assert letter in problem.detail
    assert "see row 3" in problem.detail


def test_zeros_in_front_make_two_patients(hospital: SmallHospital) -> None:
    _patients(hospital, "7", "007")

    arrays = read_hospital(hospital.folder, hospital.schema).arrays

    assert arrays.patient_ids == ("7", "007")
    assert arrays.present["vitals"].tolist() == [True, False]


def test_ids_match_whatever_types_the_tables_have(hospital: SmallHospital) -> None:
    ids = [20230000, 20230001]
    _patients(hospital, *map(str, ids))
    (hospital.folder / "vitals.csv").unlink()
    vitals = pd.DataFrame({"patient_id": np.array(ids, float), "time": [0, 0], "hr": [61, 62], "spo2": [None, 98.0]})
    vitals.to_parquet(hospital.folder / "vitals.parquet")
    pd.DataFrame({"patient_id": ids, "item": ["nail", "screw"]}).to_parquet(hospital.folder / "procedures.parquet")

    arrays = read_hospital(hospital.folder, hospital.schema).arrays

    assert arrays.raw["vitals"][:, 0, 0].tolist() == [61, 62]
    assert arrays.raw["procedures"].tolist() == [[1, 0], [0, 1]]


def test_levels_items_and_files_match_in_either_form_of_unicode(hospital: SmallHospital) -> None:
    hospital.edit("schema.toml", '"nail", "screw"', f'"{NFD} ", "screw"')
    hospital.write("procedures.csv", f"patient_id,item\nP1,{NFC}\u200b\n")
    (hospital.folder / "images" / "p1-hip.png").rename(hospital.folder / "images" / f"{NFD}.png")
    hospital.edit("images.csv", "images/p1-hip.png", f"images/{NFC}\u200b.png")
    schema = load_schema(hospital.folder / "schema.toml")

    arrays = read_hospital(hospital.folder, schema).arrays

    assert arrays.raw["procedures"][0].tolist() == [1, 0]
    assert arrays.present["hip"][0]
    assert list_patient_images(hospital.folder, schema, " P1\u200b")["hip"].name == f"{NFD}.png"


def test_an_unknown_level_that_looks_like_a_known_one_says_where_they_differ(hospital: SmallHospital) -> None:
    hospital.edit("procedures.csv", "P3,screw", "P3,s\u0441rew")

    [problem] = _problems(hospital)
    assert problem.rule == "unknown-item"
    assert r"'s\u0441rew' (which looks like the known 'screw', but one of them holds U+0441 CYRILLIC" in problem.detail
