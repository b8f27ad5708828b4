import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from shared_model.errors import SettingsError
from shared_model.process.toml_file import read_toml, toml_bytes


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    port: int = 1


@given(st.text(), st.lists(st.text(max_size=5), max_size=3))
def test_what_can_be_printed_is_read_as_it_was_written(text: str, texts: list[str]) -> None:
    if not all(one.isprintable() for one in (text, *texts)):
        with pytest.raises(SettingsError, match=r"expected text that can be printed"):
            toml_bytes({"name": text, "texts": texts})
        return
    assert tomllib.loads(toml_bytes({"name": text, "port": 7, "texts": texts}).decode()) == {
        "name": text,
        "port": 7,
        "texts": texts,
    }


def test_all_faults_of_a_file_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('prot = 5\nport = "x"\n', encoding="utf-8")

    with pytest.raises(SettingsError) as refused:
        read_toml(tmp_path / "a.toml", Example, remedy="")

    lines = str(refused.value).splitlines()
    assert [line.removeprefix(str(tmp_path / "a.toml")).partition(":")[0] for line in lines] == [
        ", name",
        ", port",
        ", prot",
    ]


def test_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"a\.toml: expected a settings file, got: No such file .*\. Make it\."):
        read_toml(tmp_path / "a.toml", Example, remedy="Make it.")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe"])
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.toml").write_bytes(content)

    with pytest.raises(SettingsError, match=r"a\.toml: expected TOML, got"):
        read_toml(tmp_path / "a.toml", Example, remedy="")
