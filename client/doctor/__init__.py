"""Whether this machine can take part in a study: what is checked, what was found, what to do."""

from client.doctor.examination import examine, print_findings
from client.doctor.finding import CheckResult

__all__ = ["CheckResult", "examine", "print_findings"]
