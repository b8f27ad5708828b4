"""The commands that the guides show exist, with the options that are shown, and links lead somewhere."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import client.cli
import server.cli
import simulation.cli

ROOT = Path(__file__).resolve().parents[1]
APPS = {
    "hipfed-server": server.cli.app,
    "hipfed-client": client.cli.app,
    "hipfed-sim": simulation.cli.app,
}
GUIDES = [*sorted(ROOT.glob("[A-Z]*.md")), *sorted(ROOT.glob("*/[A-Z]*.md"))]

_COMMAND = re.compile(r"(?:\w*\$ +|\.venv/bin/)?((?:hipfed-(?:server|client|sim)) [a-z].*)")
_OPTION = re.compile(r"--[a-z][a-z-]*")


def _commands(guide: Path) -> Iterator[str]:
    """Lines of code blocks, and pieces of code in the text, that are commands of ours with a subcommand."""
    text = guide.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\n  ", " \n").splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```\w*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for line in (*lines, *inline):
        if found := _COMMAND.match(line.strip()):
            yield found.group(1)


def _command_of(line: str) -> click.Command:
    """The command that a line names.

    Raises:
        KeyError: there is none of this name.
    """
    program, *words = line.split()
    command: click.Command = typer.main.get_command(APPS[program])
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    return command


def _check(line: str) -> None:
    """Every option that a line shows is one of its command's."""
    command = _command_of(line)
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    shown = set(_OPTION.findall(re.sub(r"#.*|  .*", "", line) if "  " in line else line))
    assert shown <= known, f"{line}: {sorted(shown - known)}"


SHOWN = [(guide, line) for guide in GUIDES for line in dict.fromkeys(_commands(guide))]


@pytest.mark.parametrize(
    ("guide", "line"), SHOWN, ids=lambda value: value if isinstance(value, str) else f"{value.parent.name}/{value.name}"
)
def test_command_of_a_guide_exists_with_the_options_shown(guide: Path, line: str) -> None:  # noqa: ARG001
    _check(line)


def test_guides_of_both_sides_show_every_command_of_theirs() -> None:
    for program, folder in (("hipfed-server", "server"), ("hipfed-client", "client")):
        group = typer.main.get_command(APPS[program])
        assert isinstance(group, click.Group)
        shown = {_command_of(line).name for guide, line in SHOWN if guide.parent.name == folder and program in line}
        assert shown >= set(group.commands)


@pytest.mark.parametrize("line", ["hipfed-server start --no-such-option", "hipfed-client no-such-command"])
def test_command_that_does_not_exist_would_be_found(line: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        _check(line)


def test_commands_that_are_run_as_shown_parse() -> None:
    """Lines after a prompt are whole: they parse with their arguments, too."""
    for guide in GUIDES:
        for line in re.findall(r"^\$ (hipfed-(?:server|client) .*)$", guide.read_text(encoding="utf-8"), re.MULTILINE):
            words = [word for word in shlex.split(line.partition("  ")[0])[1:] if word != _command_of(line).name]
            context = click.Context(_command_of(line))
            _, left, _ = _command_of(line).make_parser(context).parse_args(list(words))
            assert not left, line


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: f"{guide.parent.name}/{guide.name}")
def test_links_between_guides_lead_to_files_and_headings(guide: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", guide.read_text(encoding="utf-8")):
        file = (guide.parent / target).resolve() if target else guide
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{target}#{anchor}"


def test_pages_for_hospitals_and_coordinators_have_at_most_1500_words() -> None:
    pages = [page for folder in ("client", "server") for page in sorted((ROOT / folder).glob("*.md"))]

    long = {page.name: n for page in pages if (n := len(page.read_text(encoding="utf-8").split())) > 1500}

    assert long == {}
    assert len(pages) > 10
