"""Where the SuperNode's files lie, and who may touch them."""

import os
import pwd
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.deployment.courier_place import courier_place, prepare_courier
from client.enrolment.keygen import make_hospital
from client.home import HospitalHome, HospitalSettings
from shared_model.errors import KeyFileError, SiteError

OTHER = "nobody"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to another user")


@pytest.fixture
def home(tmp_path: Path) -> HospitalHome:
    home = HospitalHome(tmp_path / "home")
    settings = HospitalSettings(name="north", data="/d", server="127.0.0.1:1", cache="/c")
    make_hospital(home, settings, now=datetime.now(UTC))
    home.authority.write_text("certificate")
    return home


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_supernode_of_the_same_user_lives_in_the_home(home: HospitalHome) -> None:
    place = prepare_courier(home, courier_user=None)

    assert place.node_key == home.node_key
    assert place.authority == home.authority
    for folder in (place.state, place.flower, place.temporary):
        assert folder.is_relative_to(home.folder)
        assert _mode(folder) == 0o700
    assert place.socket.is_relative_to(home.folder)
    assert not place.socket.is_relative_to(place.state)


@as_root
def test_supernode_of_another_user_owns_its_state_and_copies_and_nothing_else(home: HospitalHome) -> None:
    account = pwd.getpwnam(OTHER)

    place = prepare_courier(home, courier_user=OTHER)

    beside = home.folder.with_name("home-courier")
    assert (beside.stat().st_uid, _mode(beside)) == (0, 0o711)
    assert not list(beside.rglob("signing*"))
    assert (place.node_key.parent.stat().st_uid, _mode(place.node_key.parent)) == (0, 0o711)
    for path in (place.state, place.flower, place.temporary, place.node_key, place.authority):
        assert path.is_relative_to(beside)
        assert path.stat().st_uid == account.pw_uid
        assert _mode(path) == (0o700 if path.is_dir() else 0o600)
    assert place.node_key.read_bytes() == home.node_key.read_bytes()
    assert home.node_key.stat().st_uid == 0
    assert place.socket.parent.parent == beside  # the worker makes it, for the courier to pass


@as_root
def test_preparing_again_takes_the_keys_that_the_home_holds_now(home: HospitalHome) -> None:
    place = prepare_courier(home, courier_user=OTHER)
    (place.flower / "kept").touch()
    home.authority.write_text("another")

    prepare_courier(home, courier_user=OTHER)

    assert place.authority.read_text() == "another"
    assert (place.flower / "kept").exists()


@as_root
def test_link_in_place_of_a_folder_is_refused(home: HospitalHome, tmp_path: Path) -> None:
    place = courier_place(home, courier_user=OTHER)
    place.state.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    place.state.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SiteError, match=r"Not a directory|Too many levels"):
        prepare_courier(home, courier_user=OTHER)

    assert (tmp_path / "elsewhere").stat().st_uid == 0


def test_unknown_user_is_refused(home: HospitalHome) -> None:
    with pytest.raises(SiteError, match=r"expected a user of this machine, got 'no-such-user'"):
        prepare_courier(home, courier_user="no-such-user")


def test_key_that_others_may_read_is_refused(home: HospitalHome) -> None:
    home.node_key.chmod(0o640)

    with pytest.raises(KeyFileError, match="others may read or change it"):
        prepare_courier(home, courier_user=None)


@as_root
def test_folder_of_a_former_supernodes_user_is_refused_until_it_is_removed(home: HospitalHome) -> None:
    prepare_courier(home, courier_user=OTHER)
    beside = home.folder.with_name("home-courier")

    with pytest.raises(SiteError, match=rf"of user daemon, got that of another user's.*\(rm -r {beside}\)"):
        prepare_courier(home, courier_user="daemon")

    assert (beside / "state").stat().st_uid == pwd.getpwnam(OTHER).pw_uid
    shutil.rmtree(beside)
    assert prepare_courier(home, courier_user="daemon").state.is_dir()


@as_root
def test_workers_folder_that_a_former_supernode_may_pass_is_refused(home: HospitalHome) -> None:
    worker = courier_place(home, courier_user=OTHER).socket.parent
    worker.mkdir(parents=True, mode=0o710)
    os.chown(worker, -1, pwd.getpwnam("daemon").pw_gid)

    with pytest.raises(SiteError, match="got that of another user's"):
        prepare_courier(home, courier_user=OTHER)


@as_root
@pytest.mark.parametrize("name", ["", "keys"])
def test_folder_that_another_user_made_first_is_refused(home: HospitalHome, name: str) -> None:
    folder = home.folder.with_name("home-courier") / name
    folder.mkdir(parents=True)
    os.chown(folder, pwd.getpwnam("daemon").pw_uid, 0)

    with pytest.raises(SiteError, match="expected a folder of this user, got another user's"):
        prepare_courier(home, courier_user=OTHER)

    assert not list(folder.rglob("node"))
