import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_model.pages.escaping import figure_text, isolated, script_json


@given(st.text())
def test_json_for_a_script_cannot_end_it_and_reads_back(text: str) -> None:
    written = script_json({text: [text, None, 1.5]})

    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {text: [text, None, 1.5]}


def test_json_for_a_script_refuses_what_json_does_not_have() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        script_json([float("nan")])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("age (years)", "age (years)"),
        ("<b>a & b</b>", "&lt;b&gt;a &amp; b&lt;/b&gt;"),
        ("&lt;i&gt;", "&amp;lt;i&amp;gt;"),
        ("$x^2$", "&#36;x^2&#36;"),
        ("a" * 40, "a" * 29 + "…"),
        ("two\nlines\x00", "two lines "),
        ("\u05d0\u05d1", "\u2068\u05d0\u05d1\u2069"),
    ],
    ids=["plain", "markup", "entity", "tex", "long", "control", "right-to-left"],
)
def test_name_in_a_figure_is_text_of_one_line_and_keeps_its_direction_to_itself(text: str, shown: str) -> None:
    assert figure_text(text) == shown


def test_override_of_the_direction_is_taken_out_of_a_figure() -> None:
    assert "\u202e" not in figure_text("exe.\u202egnp")


def test_name_that_turns_the_direction_is_isolated_in_a_sentence() -> None:
    assert isolated("east (1)") == "east (1)"
    assert isolated("\u0645\u0633") == "\u2068\u0645\u0633\u2069"
    assert isolated("exe.\u202egnp") == "\u2068exe.\u202egnp\u2069"
    assert isolated("out\u2069 \u202ere") == "\u2068out \u202ere\u2069"  # it cannot end its isolation
    assert isolated("\u2067open") == "\u2068\u2067open\u2069\u2069"  # nor leave another open
    names = "\u2068\u0645\u2069, \u2068\u0633\u2069"
    assert isolated(names) == f"\u2068{names}\u2069"
