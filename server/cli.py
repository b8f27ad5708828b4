"""`hipfed-server`: what the coordinator runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from server.commands.dashboard import dashboard
from server.commands.deployment import run, start, status, stop
from server.commands.enrolment import audit, enrol, hospitals, provision, revoke
from server.commands.study import study
from shared_model.identity.proxy_variables import forget_proxies
from shared_model.process.command_refusal import plain_refusal
from shared_model.process.command_version import Version

app = typer.Typer(name="hipfed-server", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _command in (provision, enrol, revoke, hospitals, audit, study, start, status, run, stop, dashboard):
    app.command()(_command)


@app.callback()
def main(*, version: Version = False) -> None:  # noqa: ARG001 - the option acts by itself
    """The coordinator of a federated study. It is sent sums over patients, no records. Research use only."""
    forget_proxies()


@app.command()
def show(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Say how a run stands: its state, the hospitals that were excluded, and its metrics."""
    from server.run_folder.summary import print_run

    with plain_refusal("hipfed-server"):
        print_run(run, Console())


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or not.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write.  [default: RUN/report.html]")
    ] = None,
) -> None:
    """Write the report of a run: one page that opens offline, made from the run folder alone."""
    from server.report.writing import write_report

    with plain_refusal("hipfed-server"):
        file = write_report(run, out)
    Console().print(f"report: {file}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def agreement(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that was explained.")],
    expert: Annotated[
        Path,
        typer.Option(
            "--expert",
            metavar="FILE.csv",
            help="The experts' table: columns kind, modality, feature, rank or points, and if several, expert.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.json", help="Write everything that is known to a file.")
    ] = None,
    top: Annotated[
        int, typer.Option("--top", metavar="K", help="How many of the first items to compare as a set.")
    ] = 5,
) -> None:
    """Say whether clinicians hold the same modalities and features to be important as the model does."""
    from server.agreement.comparison import compare_with_experts, print_agreement, write_agreement

    with plain_refusal("hipfed-server"):
        report = compare_with_experts(run, expert, top=top)
        if out is not None:
            write_agreement(report, out, run=run, expert=expert)
        print_agreement(report, Console())
