"""All checks in their order, and how they are shown."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from client.doctor.finding import CheckResult
from client.doctor.home_checks import check_certificate, check_data, check_keys, check_schema, check_worker, now_utc
from client.doctor.machine import check_disk, check_gpu, check_packages, check_python
from client.doctor.network import check_network
from client.home import HospitalHome
from shared_model.errors import HipfedError
from shared_model.identity.address import split_address

_STYLES = {"fine": "green", "warning": "yellow", "fault": "red", "unchecked": "dim"}


def examine(home: HospitalHome) -> list[CheckResult]:
    """Every check; a fault of one does not keep the others from being made, where they do not rest on it."""
    findings = [check_python(), check_packages(), check_gpu()]
    try:
        settings = home.read_settings()
    except HipfedError as error:
        rest = ("keys", "ca.crt", "data folder", "schema", "cache", "coordinator")
        findings.append(CheckResult("settings", "fault", str(error)))
        return [*findings, *(CheckResult(subject, "unchecked", "mend settings first") for subject in rest)]
    host, port = split_address(settings.server)
    data = Path(settings.data)
    return [
        *findings,
        CheckResult("settings", "fine", f"{settings.name}, coordinator {settings.server}"),
        check_keys(home),
        check_certificate(home, now=now_utc()),
        check_data(data),
        check_schema(data),
        *check_worker(home),
        check_disk(Path(settings.cache), "cache"),
        *check_network(host, port, home.authority, now=now_utc()),
    ]


def print_findings(findings: Sequence[CheckResult], console: Console) -> bool:
    """One line a check, with the remedy below where there is one; whether nothing is at fault."""
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        line = Text(f"{finding.subject:<{width}}  ")
        line.append(f"{finding.grade:<9}", style=_STYLES[finding.grade])
        console.print(line.append(f"  {finding.detail}"), soft_wrap=True)
        if finding.remedy:
            console.print(Text(f"{'':<{width + 13}}{finding.remedy}"), soft_wrap=True)
    faults = sum(finding.grade == "fault" for finding in findings)
    warnings = sum(finding.grade == "warning" for finding in findings)
    console.print(f"{_count(faults, 'fault')}, {_count(warnings, 'warning')}", highlight=False)
    return not faults


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
