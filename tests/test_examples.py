"""The example units and compose files name commands and options that exist."""

import configparser
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml  # type: ignore[import-untyped]

import client.cli
import server.cli

ROOT = Path(__file__).resolve().parents[1]
APPS = {"hipfed-server": server.cli.app, "hipfed-client": client.cli.app}
UNITS = sorted(ROOT.glob("*/examples/*.service"))
COMPOSE_FILES = sorted(ROOT.glob("*/examples/*.yaml"))


def _parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command's name and its options, as the command line would take them."""
    program, name, *options = words
    group = typer.main.get_command(APPS[Path(program).name])
    assert isinstance(group, click.Group)
    command = group.commands[name]
    return name, command.make_context(name, options).params


def _read_unit(file: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(file.read_text())
    return parser


def test_each_side_has_a_unit_and_a_compose_file() -> None:
    assert [file.parent.parent.name for file in UNITS] == ["client", "server"]
    assert [file.parent.parent.name for file in COMPOSE_FILES] == ["client", "server"]


def test_images_take_what_an_installation_needs_and_nothing_else() -> None:
    """Keys and patients may lie in the checkout; what is not named stays outside."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = [
        "pyproject.toml",
        ".ci/constraints.txt",
        project["project"]["readme"],
        *project["project"]["license-files"],
    ]
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {*files, *(f"{name}/" for name in packages)}


@pytest.mark.parametrize("file", UNITS, ids=lambda file: str(file.name))
def test_unit_starts_a_command_that_exists_in_the_foreground(file: Path) -> None:
    unit = _read_unit(file)

    name, options = _parse(shlex.split(unit["Service"]["ExecStart"]))

    assert name == "start"
    assert Path(options["home"]).is_relative_to(unit["Service"]["ReadWritePaths"])
    assert not options["detach"]  # systemd follows the process that it started
    assert unit["Service"]["KillMode"] == "mixed"
    assert unit["Install"]["WantedBy"] == "multi-user.target"


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: str(file.parent.parent.name))
def test_compose_file_starts_and_asks_commands_that_exist(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    (service,) = content["services"].values()

    started, options = _parse(service["command"])
    asked, asked_options = _parse(service["healthcheck"]["test"][1:])

    assert (started, asked) == ("start", "status")
    assert options["home"] == asked_options["home"]
    mounted = {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith("/")}
    assert mounted == set(content["volumes"])
    assert (file.parent / service["build"]["context"] / "pyproject.toml").is_file()


def test_options_that_do_not_exist_would_be_found() -> None:
    with pytest.raises(click.NoSuchOption):
        _parse(["hipfed-server", "start", "--no-such-option"])
