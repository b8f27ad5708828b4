"""A study as a hospital sees it before it says yes."""

from collections.abc import Sequence

from rich.console import Console

from client.enrolment.approvals import Approval
from shared_model.config import Scalar, parse_settings
from shared_model.modalities.registry import open_modalities
from shared_model.privacy.second_moments import LEAST_RATIO, count_columns, second_moments
from shared_model.protocol.study_hash import SHOWN_DIGITS, StudyFile
from shared_model.schema import Schema


def print_study(console: Console, study: StudyFile) -> None:
    """Schema, settings (those that differ from the defaults first), versions, hash."""
    changed = study.changed_settings()
    rest = {key: value for key, value in study.settings.items() if key not in changed}
    lines = [
        *_describe_schema(study.study),
        "",
        f"settings that differ from the defaults: {len(changed) or 'none'}",
        *_describe_settings(changed),
        f"settings at their defaults: {len(rest)}",
        *_describe_settings(rest),
        "",
        *_describe_trust(study),
        "",
        f"hipfed {study.hipfed}, protocol {study.protocol}",
        f"study {study.sha256}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _describe_trust(study: StudyFile) -> list[str]:
    """In plain words what the coordinator can compute, and when this hospital would keep out for it."""
    settings = parse_settings(study.settings)
    asked, columns = second_moments(settings), count_columns(study.study, settings)
    if not asked:
        return ["patients from sums: no question of this study asks for products of columns."]
    least = LEAST_RATIO * columns
    if settings.trust_coordinator:
        return [
            "trust-coordinator = True: THE COORDINATOR CAN COMPUTE PATIENTS.",
            f"  The model has {columns} columns. From two answers of a hospital with no more training patients than",
            "  that the coordinator can compute each one's row, as exactly as the model sees it, and the outcome.",
            "  Approve only if your patients' data may be in the coordinator's hands.",
        ]
    return [
        f"patients from sums: the model has {columns} columns. With fewer than {least} training patients, twice as",
        "  many, this hospital is left out of the study: the coordinator could compute its patients.",
    ]


def print_approvals(console: Console, approvals: Sequence[Approval]) -> None:
    """One line a study."""
    if not approvals:
        console.print("no study is approved")
    for each in approvals:
        study = each.study
        differing = ", ".join(f"{key}={value}" for key, value in study.changed_settings().items())
        console.print(
            f"{study.sha256[:SHOWN_DIGITS]}  {study.study.study.name}  hipfed {study.hipfed}  "
            f"{each.approved} by {each.by}  {differing or 'default settings'}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _describe_schema(schema: Schema) -> list[str]:
    lines = [
        f"{schema.study.name}: {schema.study.title}",
        f"  outcome: {schema.study.outcome}",
        *(f"  {each.describe()}" for each in open_modalities(schema).values()),
    ]
    return [*lines, f"  schema {schema.sha256}"]


def _describe_settings(settings: dict[str, Scalar]) -> list[str]:
    return [f"  {key} = {value!r}" for key, value in settings.items()]
