"""Extensions: kinds of modality, image encoders and strategies that installed packages add by entry points.

An entry point has a group, which says what is added, a name by which a study asks for it, and an object. The groups
and what their objects are: simulation/README.md. Every hospital of a study needs the package, too.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from shared_model.errors import ExtensionError

MODALITIES = "hipfed.modalities"
READERS = "hipfed.readers"
PAGE_PARTS = "hipfed.page_parts"
IMAGE_ENCODERS = "hipfed.image_encoders"
STRATEGIES = "hipfed.strategies"


@cache
def entry_points_of(group: str) -> Mapping[str, EntryPoint]:
    """Entry points of the installed packages by name.

    Raises:
        ExtensionError: two packages give one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ExtensionError(
                f"{group}, {entry.name}: expected one package with this name, got {other.value} and {entry.value}. "
                "Uninstall one of them."
            )
    return found


def known_names(group: str, built_in: Iterable[str]) -> tuple[str, ...]:
    """Hipfed's own names, then those of installed packages."""
    own = tuple(built_in)
    return (*own, *sorted(set(entry_points_of(group)) - set(own)))


def package_of(group: str, name: str) -> str:
    """Name and version of the package that gives a name.

    Raises:
        ExtensionError: no installed package has the name, or two have.
    """
    package = _find(group, name).dist
    return f"{package.name} {package.version}" if package else "a-package without-version"


def load(group: str, name: str) -> Any:
    """The object that an installed package gives a name.

    Raises:
        ExtensionError: no installed package has the name, or its object cannot be imported.
    """
    entry = _find(group, name)
    try:
        return entry.load()
    except Exception as error:  # whatever a package does when it is imported
        raise ExtensionError(
            f"{group}, {name}: expected {entry.value} to be importable, got {type(error).__name__}: {error}. "
            "Mend or uninstall the package."
        ) from error


def _find(group: str, name: str) -> EntryPoint:
    entry = entry_points_of(group).get(name)
    if entry is None:
        raise ExtensionError(f"{group}: expected a package that adds {name!r}, got none. Install it.")
    return entry
