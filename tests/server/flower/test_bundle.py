import shutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from server.flower.bundle import stage_app
from shared_model.version import own_version

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # raised by Flower


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, with an environment and runs in it that are not the app's."""
    checkout = tmp_path_factory.mktemp("clone") / "hipfed"
    strange = shutil.ignore_patterns(".*", "runs", "cohorts", "coordinator", "hospital", "data", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=lambda place, names: strange(place, names) if place == str(ROOT) else set())
    shutil.copyfile(ROOT / ".gitignore", checkout / ".gitignore")
    for name in (".venv/lib/package/README.md", "runs/demo/README.md", "client/__pycache__/stale.py", "LICENSE.py"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("x")
    (checkout / "server" / "elsewhere.py").symlink_to(ROOT / "server" / "app.py")
    return checkout


def test_bundle_of_the_staged_files_is_the_one_of_the_whole_checkout(checkout: Path, tmp_path: Path) -> None:
    staged = build_fab_from_disk(stage_app(checkout, tmp_path / "hipfed"))

    assert staged == build_fab_from_disk(checkout)


def test_staged_are_the_apps_files_and_nothing_else(checkout: Path, tmp_path: Path) -> None:
    folder = stage_app(checkout, tmp_path / "hipfed")

    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(BytesIO(build_fab_from_disk(folder))) as bundle:
        assert names == set(bundle.namelist()) - {".info/CONTENT"}
    assert {"pyproject.toml", "LICENSE", "client/app.py", "server/app.py", "shared_model/schema.py"} <= names
    assert not any(name.startswith(("tests/", ".venv/", "runs/")) for name in names)


def test_bundle_tells_the_commit_that_it_is_of(tmp_path: Path) -> None:
    folder = stage_app(ROOT, tmp_path / "hipfed")

    code = "from shared_model.version import own_version; print(own_version())"
    told = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == own_version()
