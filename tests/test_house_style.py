"""Rules of the tree that no linter of ours knows."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("client", "server", "shared_model", "simulation")
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_MODULES_OF_A_ROOT = 400, 50, 8


def _modules(*rooms: str) -> dict[str, str]:
    """Source by place."""
    paths = (path for room in rooms for path in (ROOT / room).rglob("*.py"))
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def _functions(source: str) -> Iterator[tuple[str, int]]:
    """Name and length of every function, in lines without its docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            n_docstring = 0
            if ast.get_docstring(node, clean=False) is not None:
                n_docstring = (first.end_lineno or 0) - first.lineno + 1
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - n_docstring


def test_every_module_has_at_most_400_lines() -> None:
    lengths = {place: len(source.splitlines()) for place, source in _modules(*ROOMS, "tests").items()}

    assert {place: n for place, n in lengths.items() if n > MOST_LINES} == {}
    assert len(lengths) > 400  # the modules were found


def test_every_package_has_at_most_8_modules_at_its_root() -> None:
    at_root = {room: sum(path.name != "__init__.py" for path in (ROOT / room).glob("*.py")) for room in ROOMS}

    assert {room: n for room, n in at_root.items() if n > MOST_MODULES_OF_A_ROOT} == {}
    assert min(at_root.values()) > 0


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for place, source in _modules(*ROOMS).items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(place)

    assert {name: found for name, found in places.items() if len(found) > 1} == {}
    assert len(places) > 100


def test_first_line_of_a_modules_docstring_names_the_thing() -> None:
    riddles = ("What", "How", "Whether", "Where", "Which", "Who", "When", "Why")
    first = {
        place: (ast.get_docstring(ast.parse(source)) or "").split("\n")[0] for place, source in _modules(*ROOMS).items()
    }

    assert {
        place: line for place, line in first.items() if line.startswith(tuple(f"{word} " for word in riddles))
    } == {}


def test_no_function_has_more_than_50_lines() -> None:
    long = {
        f"{place}:{name}": n
        for place, source in _modules(*ROOMS).items()
        for name, n in _functions(source)
        if n > MOST_LINES_OF_A_FUNCTION
    }

    assert long == {}


def test_long_function_would_be_found_and_its_docstring_does_not_count() -> None:
    lines = "\n".join("    x = 1" for _ in range(60))

    assert list(_functions(f'def long():\n    """One\n    two."""\n{lines}')) == [("long", 61)]


def _imports(source: str) -> Iterator[str]:
    """Top-level names of what a module imports from outside the project."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            first = name.split(".")[0]
            if first not in sys.stdlib_module_names and first not in (*ROOMS, "tests"):
                yield first


def _declared(*requirements: str) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def test_no_functions_docstring_begins_with_whether() -> None:
    """A predicate says when it is true; a reason says what it is."""
    riddles = {
        f"{place}, {node.name}"
        for place, source in _modules("client", "server", "shared_model", "simulation").items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and (ast.get_docstring(node) or "").startswith("Whether ")
    }

    assert riddles == set()


def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own, extras = project["dependencies"], project["optional-dependencies"]
    declared = {
        **dict.fromkeys(("client", "server", "shared_model"), _declared(*own)),
        "simulation": _declared(*own, *extras["research"], *extras["bench"]),
        "tests": _declared(*own, *extras["research"], *extras["bench"], *extras["dev"]),
    }
    distributions = packages_distributions()
    missing = {
        (place.split("/")[0], name)
        for place, source in _modules(*declared).items()
        for name in _imports(source)
        if not {one.lower().replace("_", "-") for one in distributions.get(name, [])} & declared[place.split("/")[0]]
    }

    assert missing == set()
    assert len(distributions) > 50
