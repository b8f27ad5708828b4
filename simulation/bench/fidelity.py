"""`hipfed-sim bench fidelity`: does the explanation say what is known to be true of synthetic cohorts?"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from client.cohort_folder import list_hospitals
from client.site import Site
from shared_model.config import Settings, parse_settings
from shared_model.errors import SettingsError, StudyError
from simulation.bench.share_sampling import bootstrap_difference, interval_coverage
from simulation.bench.shortcut import find_shortcut
from simulation.bench.weights_and_order import deletion_curves, randomised_weights
from simulation.cohort import write_cohort
from simulation.cohort.truth import parse_truth
from simulation.finished.explained import ExplainedSite, explain_site, explain_sites, pooled_background, run_in_process
from simulation.in_process import accept_all

IMAGES = ("hip", "chest")


def bench_fidelity(
    *, patients: int, image_size: int, seed: int, assignments: Mapping[str, str], folder: Path | None, console: Console
) -> dict[str, Any]:
    """Recovered against true shares, planted faults, sanity of the method, and coverage of its intervals.

    Args:
        patients: of each of three cohorts (default, shortcut, scanner-shift).
        image_size: pixels.
        seed: of cohorts and runs.
        assignments: settings of the runs.
        folder: keeps cohorts and runs, and uses those that it has; None = a temporary folder.
        console: where progress is shown.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = parse_settings({"device": "cpu", **assignments, "seed": seed})
    if settings.explain == "none":
        raise SettingsError("explain: expected modalities or features, got none. Leave it out.")
    with tempfile.TemporaryDirectory(prefix="hipfed-fidelity-") as temporary:
        place = folder or Path(temporary)
        studies = {}
        for scenario in ("default", "shortcut", "scanner-shift"):
            console.print(f"{scenario}: cohort and run", markup=False)
            studies[scenario] = _study(
                place, scenario, patients=patients, image_size=image_size, seed=seed, settings=settings
            )
        console.print("checks", markup=False)
        default, shortcut, shifted = studies.values()
        return {
            "patients": patients,
            "image_size": image_size,
            "seed": seed,
            "settings": dict(assignments),
            "shares": recovered_shares(place / "default", place / "run-default", default),
            "background": compare_backgrounds(default, seed=seed),
            "shortcut": find_shortcut(place / "shortcut", shortcut),
            "scanner_shift": {
                name: compare_spread(place / "run-default", place / "run-scanner-shift", name) for name in IMAGES
            }
            | {"hospital": _site_shares(place / "scanner-shift", shifted)},
            "randomised_weights": randomised_weights(default, seed=seed),
            "deletion": deletion_curves(default, seed=seed),
            "coverage": interval_coverage(_phi(default), seed=seed),
            "bootstrap": bootstrap_difference(_phi(default), seed=seed),
        }


def _study(
    place: Path, scenario: str, *, patients: int, image_size: int, seed: int, settings: Settings
) -> list[ExplainedSite]:
    cohort, run = place / scenario, place / f"run-{scenario}"
    if not (cohort / "truth.json").exists():
        write_cohort(cohort, hospitals=None, patients=patients, image_size=image_size, seed=seed, scenario=scenario)
    cache_dir = place / "cache"
    if (run / "explanations.json").exists():
        sites = [Site(folder.name, folder, cache_dir) for folder in list_hospitals(cohort)]
    else:
        names = [folder.name for folder in list_hospitals(cohort)]
        sites = run_in_process(cohort, run, accept_all(settings, names), cache_dir=cache_dir)
    return explain_sites(run, sites)


def recovered_shares(cohort: Path, run: Path, explained: Sequence[ExplainedSite]) -> dict[str, Any]:
    """Shares of explanations.json against the truth, and the correlation of patients' values with the true ones."""
    truth = parse_truth((cohort / "truth.json").read_text(encoding="utf-8"), source=str(cohort))
    found = _read_modalities(run)
    table = pd.read_csv(cohort / "truth_patients.csv").set_index("patient_id")
    ids = [patient for site in explained for patient in site.patient_ids]
    phi = _phi(explained)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"]["pooled"]
    names = explained[0].found.modalities
    return {
        "auc": metrics.get("auc"),
        "best_auc": truth.best_auc,
        "modalities": {
            name: {
                "true": truth.shares[name],
                "recovered": found[name]["share"],
                "ci": found[name]["share_ci"],
                "difference_points": 100 * (found[name]["share"] - truth.shares[name]),
                "correlation_with_truth": _correlation(phi[:, i], table.loc[ids, f"best_{name}"].to_numpy()),
            }
            for i, name in enumerate(names)
        },
    }


def _read_modalities(run: Path) -> dict[str, Any]:
    explanations: dict[str, Any] = json.loads((run / "explanations.json").read_text(encoding="utf-8"))
    if explanations.get("suppressed"):
        raise StudyError(f"explanation at {run}: expected enough patients and deaths, got too few. Use more patients.")
    modalities: dict[str, Any] = explanations["modalities"]
    return modalities


def compare_backgrounds(explained: Sequence[ExplainedSite], *, seed: int) -> dict[str, Any]:
    """Shares against the common synthetic background less those against real training patients of all hospitals."""
    n_rows = explained[0].run.settings.background_rows
    real = pooled_background(explained, n_rows=n_rows, seed=seed)
    again = [explain_site(site.run, site.site, real).found.phi for site in explained]
    common, pooled = _shares(_phi(explained)), _shares(np.concatenate(again))
    names = explained[0].found.modalities
    return {name: 100 * float(common[i] - pooled[i]) for i, name in enumerate(names)}


def compare_spread(default: Path, shifted: Path, name: str) -> dict[str, Any]:
    """Tau and I^2 of an image's share between hospitals, in the default cohort and with one other scanner."""
    entries = {}
    for label, run in (("default", default), ("scanner_shift", shifted)):
        found = _read_modalities(run)[name]
        entries[label] = {key: found[key] for key in ("share", "tau", "i2")}
    return entries


def _site_shares(cohort: Path, explained: Sequence[ExplainedSite]) -> dict[str, Any]:
    """Image shares at the affected hospital and the mean of the others."""
    truth = parse_truth((cohort / "truth.json").read_text(encoding="utf-8"), source=str(cohort))
    affected = truth.changes["hospital"]
    names = explained[0].found.modalities
    shares = {site.site.name: _shares(site.found.phi) for site in explained}
    others = np.mean([share for name, share in shares.items() if name != affected], axis=0)
    return {
        "affected": affected,
        "share_there": {name: float(shares[affected][names.index(name)]) for name in IMAGES},
        "share_elsewhere": {name: float(others[names.index(name)]) for name in IMAGES},
    }


def _phi(explained: Sequence[ExplainedSite]) -> np.ndarray:
    return np.concatenate([site.found.phi for site in explained])


def _shares(phi: np.ndarray) -> np.ndarray:
    size = np.abs(phi).sum(axis=0)
    return np.asarray(size / size.sum())


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else None
