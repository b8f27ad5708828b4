from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.deployment.supervise import processes_of
from client.doctor import CheckResult, examine
from client.doctor.home_checks import check_certificate, check_data, check_keys, check_schema, check_worker
from client.home import HospitalHome
from shared_model.process.folder_lock import hold_lock
from shared_model.process.supervised_process import Part
from shared_model.process.supervision import LOCK
from shared_model.process.supervisor import Supervisor
from tests.client.doctor.conftest import NOW
from tests.client.doctor.coordinator_double import serve_status, status_of


def _connect(home: HospitalHome, port: int) -> None:
    text = home.settings_file.read_text().replace("127.0.0.1:1", f"127.0.0.1:{port}")
    home.settings_file.write_text(text)


def test_hospital_that_is_ready_has_no_fault(home: HospitalHome, coordinator: Path) -> None:
    with serve_status(status_of(), coordinator / "tls") as port:
        _connect(home, port)
        findings = examine(home)
        result = CliRunner().invoke(app, ["doctor", "--home", str(home.folder)])

    assert not [finding for finding in findings if finding.grade in {"fault", "unchecked"}]
    assert result.exit_code == 0
    assert "0 faults" in result.stdout
    subjects = "Python packages GPU settings keys ca.crt data folder schema cache proxy name port TLS coordinator"
    assert " ".join(finding.subject for finding in findings) == f"{subjects} clock versions"


def test_fault_is_shown_with_its_remedy_and_ends_with_1(home: HospitalHome) -> None:
    home.node_key.chmod(0o644)
    result = CliRunner().invoke(app, ["doctor", "--home", str(home.folder)])
    assert result.exit_code == 1
    assert "chmod 600" in result.stdout
    assert "2 faults" in result.stdout  # the key, and nobody listens at port 1


def test_home_without_settings_is_told(tmp_path: Path) -> None:
    findings = {finding.subject: finding for finding in examine(HospitalHome(tmp_path / "none"))}
    assert findings["settings"].grade == "fault"
    assert findings["coordinator"] == CheckResult("coordinator", "unchecked", "mend settings first")
    assert findings["Python"].grade == "fine"


def _swap_public(home: HospitalHome) -> None:
    home.node_key.with_suffix(".pub").write_text(home.signing_key.with_suffix(".pub").read_text())


def _remove_public(home: HospitalHome) -> None:
    home.node_key.with_suffix(".pub").unlink()


def _truncate(home: HospitalHome) -> None:
    home.signing_key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")


@pytest.mark.parametrize("spoil", [_swap_public, _remove_public, _truncate])
def test_keys_that_do_not_fit_are_a_fault(home: HospitalHome, spoil: Callable[[HospitalHome], None]) -> None:
    assert check_keys(home).grade == "fine"
    spoil(home)
    assert check_keys(home).grade == "fault"


def test_certificate_is_judged(home: HospitalHome, coordinator: Path) -> None:
    assert check_certificate(home, now=NOW).grade == "fine"
    assert check_certificate(home, now=NOW + timedelta(days=3240)).grade == "warning"
    expired = check_certificate(home, now=NOW + timedelta(days=5000))
    assert (expired.grade, "clock" in expired.remedy) == ("fault", True)
    home.authority.write_bytes((coordinator / "tls" / "server.crt").read_bytes())
    assert "not that of an authority" in check_certificate(home, now=NOW).detail
    home.authority.write_text("hello")
    assert check_certificate(home, now=NOW).grade == "fault"
    home.authority.unlink()
    assert "telephone" in check_certificate(home, now=NOW).remedy


def test_data_folder_is_judged(home: HospitalHome, tmp_path: Path) -> None:
    folder = Path(home.read_settings().data)
    assert check_data(folder).grade == "fine"
    assert check_schema(folder).grade == "fine"
    folder.chmod(0o755)
    assert check_data(folder).grade == "warning"
    assert check_data(tmp_path / "none").grade == "fault"
    (tmp_path / "empty").mkdir()
    assert "no patients.csv" in check_data(tmp_path / "empty").detail
    (folder.parent / "schema.toml").write_text("[study]\n")
    assert check_schema(folder).grade == "fault"


def test_column_that_is_missing_is_a_fault_of_the_data(home: HospitalHome) -> None:
    table = Path(home.read_settings().data) / "patients.csv"
    table.write_text("\n".join(line.rpartition(",")[0] for line in table.read_text().splitlines()) + "\n")

    result = CliRunner().invoke(app, ["doctor", "--home", str(home.folder)])

    assert result.exit_code == 1
    assert "fault      data check failed: missing-column (1)\n" in result.stdout
    assert f"`hipfed-client check {table.parent}` says what is wrong" in result.stdout


class RefusingWorker(Part):
    def command(self) -> list[str]:
        return ["sleep", "60"]

    def is_ready(self) -> bool:
        return True

    def trouble(self) -> str:
        return "the worker refuses all studies"


def test_what_a_running_worker_cannot_do_is_a_fault(home: HospitalHome) -> None:
    assert check_worker(home) == []
    worker = RefusingWorker("worker", folder=home.folder, environment={})
    supervisor = Supervisor([worker], folder=processes_of(home), describe=lambda: "", say=lambda _: None)
    with hold_lock(processes_of(home), LOCK):
        supervisor.step(lambda _: None)
        try:
            assert check_worker(home) == [CheckResult("worker", "fault", "the worker refuses all studies")]
            assert check_worker(home)[0] in examine(home)
        finally:
            supervisor._end_all()
