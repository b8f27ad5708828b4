"""`hipfed-sim bench deployment`: what a message costs in a real deployment, and what its coordinator holds in memory.

The deployment is the guides': TLS, gateway, node authentication, a worker and a separated SuperNode at each hospital,
all on this machine.
"""

import os
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from client.cohort_folder import list_hospitals
from server.stopping import stopped_by_signals
from shared_model.config import Scalar
from simulation.bench.hospital_memory import watched_memory
from simulation.bench.loopback import Loopback
from simulation.bench.message_costs import Cost, pair_answers, read_run_log, read_worker_log, summarise_costs
from simulation.bench.reply_memory import measure_memory
from simulation.cohort import write_cohort

TARGET_S = 4.0
PATIENTS_EACH = 200
MEMORY_HOSPITALS = (3, 12)
MOST_WITHOUT_PATIENCE = 11  # rounds that no phase ends before for want of a better one


def bench_deployment(*, hospitals: int, questions: int, model_mb: int, console: Console) -> dict[str, Any]:
    """Costs of messages of one study at warm hospitals, in time and memory.

    Args:
        hospitals: how many, all on this machine: their processes share its cores.
        questions: rounds of the training of the fusion head, one message each to every hospital. Of the other kinds
            there is one message each.
        model_mb: size of the model whose round's memory is measured, MB; 0 leaves it out.
        console: where progress is shown.

    Returns:
        Seconds by kind of message and part of the way, peak memory of the hospitals' processes and of the coordinator's
        round, and the machine's load meanwhile.
    """
    result: dict[str, Any] = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0], "target_s": TARGET_S}
    if model_mb:
        console.print("memory", highlight=False)
        result["memory"] = measure_memory(MEMORY_HOSPITALS, model_mb=model_mb)
    with stopped_by_signals(console.print), tempfile.TemporaryDirectory(prefix="hipfed-bench-") as folder:
        costs, held_mb = measure_messages(Path(folder), hospitals=hospitals, questions=questions, console=console)
    result |= {"hospitals": hospitals, "messages": summarise_costs(costs), "held_mb": held_mb}
    return result | {"load_after": os.getloadavg()[0]}


def measure_messages(
    folder: Path, *, hospitals: int, questions: int, console: Console
) -> tuple[list[Cost], dict[str, int]]:
    """Costs of all messages of a small study, and the peak memory of a hospital's processes meanwhile, MB.

    The handshakes are left out: in them, hospitals read their patients anew.
    """
    cohort = folder / "cohort"
    write_cohort(cohort, hospitals=hospitals, patients=PATIENTS_EACH * hospitals, image_size=33)
    names = tuple(hospital.name for hospital in list_hospitals(cohort))
    deployment = Loopback(folder / "homes", cohort, names)
    (folder / "homes").mkdir()
    console.print(f"deployment of {hospitals} hospitals", highlight=False)
    deployment.make()
    settings: dict[str, Scalar] = {
        "min-sites": hospitals,
        "rounds-unimodal": 0,
        "rounds-fusion": questions,
        "strategy": "fedavg",  # Newton's steps would have converged before
        **({"patience": questions} if questions > MOST_WITHOUT_PATIENCE else {}),
        "explain": "modalities",
        "accept-red": ",".join(names),
        "device": "cpu",
        "trust-coordinator": True,  # so few patients each
    }
    with deployment.running():
        console.print("study", highlight=False)
        with watched_memory([deployment.hospital(name).folder / "processes" for name in names]) as held_mb:
            run = deployment.run_study(settings)
    asked = read_run_log((run / "log.txt").read_text(encoding="utf-8").splitlines())
    costs = [pair_answers(answers, read_worker_log(_worker_log(deployment, name))) for name, answers in asked.items()]
    return list(chain.from_iterable(costs)), held_mb


def _worker_log(deployment: Loopback, name: str) -> list[str]:
    (log,) = deployment.hospital(name).folder.glob("cache/sites/*/worker.log")
    return log.read_text(encoding="utf-8").splitlines()


def print_deployment(result: dict[str, Any], console: Console) -> None:
    """The figures for people."""
    for kind, parts in result["messages"].items():
        beyond, there, back = parts["beyond_work"], parts["way_there"], parts["way_back"]
        console.print(
            f"{kind:17s} n {beyond['n']:3d}  beyond work {beyond['median']:.2f} s (least {beyond['min']:.2f}, 90 % "
            f"{beyond['p90']:.2f}, most {beyond['max']:.2f}); there {there['median']:.2f}, back {back['median']:.2f}",
            markup=False,
            highlight=False,
        )
    held = ", ".join(f"{name} {mb}" for name, mb in result["held_mb"].items())
    console.print(f"peak MB at one hospital (private; hospital: all of it): {held}", markup=False, highlight=False)
    for row in result.get("memory", {}).get("rounds", ()):
        console.print(f"memory with {row['hospitals']} hospitals: {row['peak_mb']} MB", highlight=False)
