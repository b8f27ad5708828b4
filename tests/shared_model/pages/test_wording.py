from pathlib import Path

import pytest

from shared_model.pages.wording import Words


@pytest.fixture
def words(tmp_path: Path) -> Words:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('[page]\nname = "page"\n', encoding="utf-8")
    second.write_text('[run]\ntold = "{name}: {n}"\n[[run.items]]\nitem = "1"\n', encoding="utf-8")
    return Words(first, second)


def test_words_of_both_files_are_found(words: Words) -> None:
    assert words("page.name") == "page"
    assert words("run.told", name="east", n=3) == "east: 3"
    assert words.rows("run.items") == [{"item": "1"}]
    assert words.section("run") == {"told": "{name}: {n}"}


def test_braces_and_attributes_in_a_value_mean_nothing(words: Words) -> None:
    assert words("run.told", name="{n.__class__} {0}", n=3) == "{n.__class__} {0}: 3"


def test_name_from_right_to_left_turns_nothing_around_it_in_a_sentence(words: Words) -> None:
    assert words("run.told", name="\u0645\u0633", n=3) == "\u2068\u0645\u0633\u2069: 3"


@pytest.mark.parametrize("key", ["page.nothing", "page", "nothing", "page.name.further"])
def test_words_that_are_not_there_are_an_error(words: Words, key: str) -> None:
    with pytest.raises(KeyError):
        words(key)


def test_place_without_a_value_is_an_error(words: Words) -> None:
    with pytest.raises(KeyError):
        words("run.told", name="east")


def test_rows_and_sections_that_are_not_there_are_an_error(words: Words) -> None:
    with pytest.raises(KeyError):
        words.rows("run.told")
    with pytest.raises(KeyError):
        words.section("run.told")
