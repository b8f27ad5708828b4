"""`hipfed-sim bench explanations`: our exact values and features beside the explainers of shap and captum.

All explain the same patients with the same model against the same background. Each runs in a process of its own; what
raises, crashes or does not end is written down as such, and tried again in the ways that its case lists.
"""

import math
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from rich.console import Console

from shared_model.config import Settings
from shared_model.errors import SettingsError, StudyError
from simulation.bench import engine, peers
from simulation.bench.explainer_model import Phi, Subject, build_subject, choose_settings
from simulation.bench.isolated import MeasurementOutcome, run_isolated

AS_DOCUMENTED = "as documented"
MOST_SAID = 100  # characters of an error on the screen; the file has more
REWRITTEN = "residual blocks rewritten: a ReLU of its own at each place, nothing in place"


@dataclass(frozen=True)
class Attempt:
    """One way to run an explainer.

    Attributes:
        explainer: takes the subject and the options, returns the function to measure.
        options: of the explainer.
        how: for the reader of the file.
    """

    explainer: Callable[..., Callable[[], Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    how: str = AS_DOCUMENTED


@dataclass(frozen=True)
class TrueValues:
    """What the values are compared with; see `Subject`."""

    modalities: tuple[str, ...]
    logit: Float64[np.ndarray, "patient"]
    base_logit: float
    phi: Phi

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "modalities": list(self.modalities),
            "logit": self.logit.tolist(),
            "base_logit": self.base_logit,
            "modality_values": self.phi.tolist(),
        }


def bench_explanations(
    *,
    image_size: int,
    patients: int,
    background: int,
    orders: int,
    timeout_s: float,
    only: Sequence[str],
    assignments: Mapping[str, str],
    console: Console,
) -> dict[str, Any]:
    """Time, memory and errors of each explainer, and the figures that our engine has to reach.

    Args:
        image_size: of both X-rays, pixels.
        patients: how many are explained.
        background: rows that every explainer compares with.
        orders: that the explainers which draw orders of the players draw; shap's takes each also in reverse.
        timeout_s: of each process.
        only: names of explainers and targets to run; none = all.
        assignments: settings of the model; `threads` are those of every process.
        console: where progress is shown.

    Raises:
        SettingsError: a name or a setting is wrong, or a library is missing.
        StudyError: the model could not be made.
    """
    settings = choose_settings(assignments)
    explainers, targets = _chosen(only, orders=orders)
    if any(name.startswith("captum") for name in explainers):
        peers.require_captum()
    with tempfile.TemporaryDirectory(prefix="hipfed-bench-") as folder:
        path = Path(folder) / "subject.pt"
        console.print(f"model, {patients} patients and {background} background rows at {image_size} px", markup=False)
        made = run_isolated(prepare_subject, path, image_size, patients, background, settings, timeout_s=timeout_s)
        if made.error is not None:
            raise StudyError(f"bench explanations: expected a model to explain, got {made.error}")
        truth: TrueValues = made.value
        found = {name: _explain(name, path, of_case, truth, timeout_s, console) for name, of_case in explainers.items()}
        reached = {name: _reach(name, path, target, timeout_s, console) for name, target in targets.items()}
    asked = {"image_size": image_size, "patients": patients, "background": background, "orders": orders}
    return {
        **asked,
        "timeout_s": timeout_s,
        "settings": dict(assignments),
        "machine": _machine(settings),
        **truth.describe(),
        "explainers": found,
        "targets": reached,
    }


def list_cases(*, orders: int) -> dict[str, tuple[Attempt, ...]]:
    """Every explainer, with the ways to run it in the order in which they are tried until one works."""
    drawn = {"n_orders": orders}
    return {
        "hipfed-modalities": (Attempt(engine.modality_values),),
        "hipfed-modalities-cached": (Attempt(engine.cached_modality_values),),
        "hipfed-features": (Attempt(engine.feature_values),),
        "shap-exact": (Attempt(peers.shap_exact),),
        "shap-kernel": (Attempt(peers.shap_kernel),),
        "shap-permutation": (Attempt(peers.shap_permutation, drawn),),
        "captum-sampling": (Attempt(peers.captum_sampling, drawn),),
        "shap-gradient": (Attempt(peers.shap_gradient),),
        "shap-deep": (
            Attempt(peers.shap_deep, {"rewritten": False, "check_additivity": True}),
            Attempt(peers.shap_deep, {"rewritten": True, "check_additivity": True}, REWRITTEN),
            Attempt(
                peers.shap_deep, {"rewritten": True, "check_additivity": False}, f"{REWRITTEN}; no check of the sum"
            ),
        ),
        "captum-deep": (
            Attempt(peers.captum_deep, {"rewritten": False}),
            Attempt(peers.captum_deep, {"rewritten": True}, REWRITTEN),
        ),
    }


TARGETS: dict[str, Callable[[Subject], Callable[[], Any]]] = {
    "thousand-patients": engine.thousand_patients,
    "explaining-over-predicting": engine.explaining_over_predicting,
    "patient-features": engine.patient_features,
    "xray-pixels": engine.xray_pixels,
}


def prepare_subject(
    path: Path, image_size: int, patients: int, background: int, settings: Settings
) -> Callable[[], TrueValues]:
    """What makes the subject's file; in a process of its own, so that this one stays small."""

    def make() -> TrueValues:
        subject = build_subject(image_size=image_size, patients=patients, background=background, settings=settings)
        subject.save(path)
        return TrueValues(subject.model.modalities, subject.logit, subject.base_logit, subject.phi)

    return make


def prepare_attempt(path: Path, attempt: Attempt) -> Callable[[], Any]:
    """The function to measure."""
    return attempt.explainer(Subject.load(path), **attempt.options)


def compare_values(phi: Phi, truth: TrueValues) -> dict[str, Any]:
    """Errors of some values.

    Returns:
        `additivity_error`: |sum of values - (f(x) - mean f(background))|, the largest over patients; likewise
        `additivity_error_relative`, over |f(x) - mean f(background)|. `modality_error`: mean |difference from
        enumeration| over mean |value|. `share_error_points`: largest difference of a share, in points.
    """
    rise = truth.logit - truth.base_logit
    gap = np.abs(phi.sum(axis=1) - rise)
    shares = [np.abs(values) / np.abs(values).sum(axis=1, keepdims=True) for values in (phi, truth.phi)]
    return {
        "additivity_error": float(gap.max()),
        "additivity_error_relative": float((gap / np.abs(rise)).max()),
        "modality_error": float(np.abs(phi - truth.phi).mean() / np.abs(truth.phi).mean()),
        "share_error_points": float(100 * np.abs(shares[0] - shares[1]).max()),
        "modality_values": phi.tolist(),
    }


def _chosen(
    only: Sequence[str], *, orders: int
) -> tuple[dict[str, tuple[Attempt, ...]], dict[str, Callable[[Subject], Callable[[], Any]]]]:
    cases = list_cases(orders=orders)
    unknown = sorted(set(only) - {*cases, *TARGETS})
    if unknown:
        raise SettingsError(
            f"--only: expected some of {', '.join([*cases, *TARGETS])}, got {', '.join(unknown)}. Leave it out for all."
        )
    return (
        {name: case for name, case in cases.items() if not only or name in only},
        {name: target for name, target in TARGETS.items() if not only or name in only},
    )


def _explain(
    name: str, path: Path, attempts: Sequence[Attempt], truth: TrueValues, timeout_s: float, console: Console
) -> dict[str, Any]:
    """Attempts until one works; the figures are those of the last."""
    tried: list[dict[str, Any]] = []
    for attempt in attempts:
        outcome = run_isolated(prepare_attempt, path, attempt, timeout_s=timeout_s)
        tried.append({"how": attempt.how, **_describe(outcome)})
        if outcome.error is None and not np.isfinite(outcome.value).all():
            tried[-1]["error"] = "values that are not finite"
        console.print(f"{name}: {_say(tried[-1])}", markup=False)
        if tried[-1]["error"] is None:
            compared = compare_values(outcome.value, truth)
            said = ("additivity_error", "modality_error", "share_error_points")
            console.print("    " + ", ".join(f"{key} {compared[key]:.2g}" for key in said), markup=False)
            return {**tried[-1], **compared, "failed_attempts": tried[:-1]}
    return {**tried[-1], "failed_attempts": tried[:-1]}


def _reach(
    name: str, path: Path, target: Callable[[Subject], Callable[[], Any]], timeout_s: float, console: Console
) -> dict[str, Any]:
    outcome = run_isolated(prepare_attempt, path, Attempt(target), timeout_s=timeout_s)
    described = {**_describe(outcome), **(outcome.value or {})}
    console.print(f"{name}: {_say(described)}", markup=False)
    numbers = {key: value for key, value in (outcome.value or {}).items() if isinstance(value, (int, float))}
    if numbers:
        console.print("    " + ", ".join(f"{key} {value:.3g}" for key, value in numbers.items()), markup=False)
    return described


def _describe(outcome: MeasurementOutcome) -> dict[str, Any]:
    measured = {"seconds": outcome.seconds, "peak_mb": outcome.peak_mb, "prepared_mb": outcome.prepared_mb}
    return {
        **{key: None if math.isnan(value) else value for key, value in measured.items()},
        "error": outcome.error,
        "warnings": list(outcome.warnings),
    }


def _say(described: Mapping[str, Any]) -> str:
    if described["error"] is not None:
        how = f"{described['how']}: " if "how" in described else ""
        return f"{how}{described['error'][:MOST_SAID]}"
    return f"{described['seconds']:.3f} s, peak {described['peak_mb']:.0f} MB"


def _machine(settings: Settings) -> dict[str, Any]:
    libraries = ("torch", "shap", "captum", "numpy")
    return {
        "cpus": os.cpu_count(),
        "threads": settings.threads,
        "processor": platform.machine(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in libraries if find_spec(name)},
    }
