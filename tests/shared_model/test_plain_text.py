import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_model.errors import SchemaError
from shared_model.plain_text import plain_text
from shared_model.schema import parse_schema

STUDY = """[study]
name = "t"
title = "t"
outcome = "died"
patient_id = "id"
[[static]]
name = "asa"
kind = "categorical"
levels = ["{}", "{}"]
"""


@given(st.text())
def test_plain_text_of_plain_text_is_the_same(text: str) -> None:
    assert plain_text(plain_text(text)) == plain_text(text)


@pytest.mark.parametrize(
    "code",
    [
        0xFEFF,
        0x200B,
        0x200C,
        0x200D,
        0x2060,
        0x00AD,
        0x200E,
        0x202E,
        0xFE0F,
        0x034F,
        0x115F,
        0x1160,
        0x3164,
        0xFFA0,
        0xE0101,
        0xFFF9,
        0x1D159,
    ],
)
def test_plain_text_drops_what_nobody_sees(code: int) -> None:
    assert plain_text(f"{chr(code)}a{chr(code)}b{chr(code)}") == "ab"


@pytest.mark.parametrize("code", [0x00A0, 0x2003, 0x2009, 0x202F, 0x3000, 0x2800])
def test_plain_text_has_plain_spaces_only(code: int) -> None:
    assert plain_text(f"{chr(code)}a{chr(code)}b{chr(code)}") == "a b"


def test_plain_text_keeps_letters_that_only_look_alike() -> None:
    assert plain_text("\u0410") != plain_text("A")


def test_schema_of_either_form_of_unicode_is_the_same_study() -> None:
    one, other = (
        parse_schema(STUDY.format(level, "1"), source="s") for level in ("Gr\u00f6\u00dfe", "Gro\u0308\u00dfe\u200b ")
    )

    assert one.sha256 == other.sha256


def test_schema_refuses_levels_that_only_look_different() -> None:
    with pytest.raises(SchemaError, match="a level is listed twice"):
        parse_schema(STUDY.format("a", "a\u200b"), source="s")
