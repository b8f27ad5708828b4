"""Checks of this machine before it takes part in a study: findings and remedies."""

from client.doctor.examination import examine, print_findings
from client.doctor.finding import CheckResult

__all__ = ["CheckResult", "examine", "print_findings"]
