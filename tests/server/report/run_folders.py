"""Run folders as a run writes them, with the numbers that a test wants."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SUPPRESSED = {"suppressed": True}

HOSTILE = (
    "<script>window.harmed=1</script>",
    '"><img src=x onerror="window.harmed=2">',
    'O\'Brien & Söhne "quoted" </title></script><b>bold</b>',
    "x" * 200,
    "\u0645\u0633\u062a\u0634\u0641\u0649\u202e gnp.exe",
    '=HYPERLINK("http://harm.example","a,b")',
    "{{ 7 * 7 }} {n} %{x} $x^2$",
    "javascript:window.harmed=3//&lt;i&gt;",
)


def write_run(
    path: Path,
    *,
    hospitals: Sequence[str] = ("east", "north", "south"),
    modalities: Sequence[str] = ("static", "vitals", "hip"),
    features: int = 3,
    rounds: int = 4,
    title: str = "Death after hip fracture",
    outcome: str = "died",
    hidden_hospitals: Sequence[str] = (),
    feature_prefix: str = "feature",
) -> Path:
    """A finished run."""
    path.mkdir(parents=True, exist_ok=True)
    shown = [name for name in hospitals if name not in hidden_hospitals]
    write(path, "status.json", {"state": "completed", "reason": ""})
    write(path, "config.json", config(hospitals, modalities, title=title, outcome=outcome))
    write(path, "quality.json", quality(hospitals))
    write(path, "metrics.json", {"test": scored_part(hospitals, shown)})
    write(path, "model.json", model())
    write(path, "explanations.json", explanation(hospitals, shown, modalities, features, feature_prefix))
    lines = [json.dumps(line) for line in training(hospitals, modalities, rounds)]
    (path / "rounds.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write(path: Path, name: str, content: Mapping[str, Any]) -> None:
    """A JSON file of the folder."""
    (path / name).write_text(json.dumps(content), encoding="utf-8")


def change(path: Path, name: str, **changes: Any) -> None:
    """Some keys of a JSON file of the folder."""
    write(path, name, {**json.loads((path / name).read_text(encoding="utf-8")), **changes})


def write_failed_run(path: Path, *, reason: str, hospitals: Sequence[str] = ("east", "north", "south")) -> Path:
    """A run that failed in its first round: two hospitals did not answer."""
    write_run(path, hospitals=hospitals)
    for name in ("metrics.json", "explanations.json", "model.json"):
        (path / name).unlink()
    line = {"round": 1, "phase": "fusion", "train_loss": 0.3, "asked": list(hospitals), "answered": [hospitals[0]]}
    line |= {"failed": dict.fromkeys(hospitals[1:], "no answer within 900 s"), "n": 40, "val_loss": None}
    line |= {"val_auc": None, "seconds": 900.0, "bytes_down": 1000, "bytes_up": 2000}
    (path / "rounds.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    write(path, "status.json", {"state": "failed", "reason": reason})
    return path


def write_suppressed_run(path: Path) -> Path:
    """A run of which nothing may be told."""
    write_run(path)
    sites = {"east": SUPPRESSED, "north": SUPPRESSED, "south": SUPPRESSED}
    write(path, "metrics.json", {"test": {"pooled": SUPPRESSED, "sites": sites, "failed": {}}})
    head = {"model_hash": "e" * 64, "background_id": "b" * 64, "failed": {}, "spread_failed": {}}
    write(path, "explanations.json", {**head, **SUPPRESSED, "sites": sites, "part": "test", "drift": []})
    return path


def write_hostile_run(path: Path) -> Path:
    """A run whose every name tries to be markup, a script, a formula or a template."""
    names = list(HOSTILE)
    run = write_run(
        path, hospitals=names, modalities=names[:5], title=HOSTILE[0] + HOSTILE[4], feature_prefix=HOSTILE[1]
    )
    config: dict[str, Any] = json.loads((run / "config.json").read_text())
    config["excluded"] = {HOSTILE[2]: HOSTILE[1]}
    config["schema"]["static"] = [{"name": name, "kind": "binary", "unit": name} for name in names]
    config["settings"]["strata"] = HOSTILE[0]
    write(run, "config.json", config)
    features = {names[0]: [{**feature(name, 0.2), "unit": name} for name in names]}
    change(run, "explanations.json", features=features)
    return run


def config(hospitals: Sequence[str], modalities: Sequence[str], *, title: str, outcome: str) -> dict[str, Any]:
    """config.json."""
    images = {name: {"size": 64} for name in modalities if name in {"hip", "chest"}}
    return {
        "run_id": "0123456789abcdef",
        "settings": {
            "seed": 0,
            "fold": 1,
            "folds": 5,
            "fusion": "early",
            "head": "",
            "strategy": "newton",
            "class-weight": "none",
            "image-encoder": "resnet18",
            "explain": "features",
            "strata": "male",
            "min-sites": 3,
            "min-patients": 10,
            "min-events": 5,
            "min-non-events": 5,
            "adapt-penalty": True,
        },
        "phases": ["unimodal", "fusion"],
        "schema": {
            "study": {"name": "hip", "title": title, "outcome": outcome, "patient_id": "id"},
            "static": [{"name": "male", "kind": "binary", "unit": ""}, {"name": "age", "kind": "numeric", "unit": "y"}],
            "series": {"vitals": {"channels": [{"name": "hr"}, {"name": "map"}]}},
            "events": {"medications": {"items": ["opioid"]}},
            "images": images,
        },
        "schema_sha256": "a" * 64,
        "protocol": 4,
        "roster": [{"site": name, "version": "0.1.0", "modalities": list(modalities)} for name in hospitals],
        "excluded": {},
        "python": "3.11.7",
        "packages": {"hipfed": "0.1.0", "torch": "2.15.0"},
    }


def quality(hospitals: Sequence[str]) -> dict[str, Any]:
    """quality.json: the first hospital is amber, the others green."""
    finding = {
        "check": "unit-shift",
        "modality": "static",
        "item": "age",
        "value": 12.0,
        "limit": 1.5,
        "grade": "amber",
    }
    green = {"grade": "green", "refused": False, "judged": 90, "by_outcome": True, "findings": []}
    rows = dict.fromkeys(hospitals, green)
    rows[hospitals[0]] = {**green, "grade": "amber", "findings": [finding]}
    return {
        "hospitals": rows,
        "failed": {},
        "correlated": [{"modality": "static", "pair": "age and asa", "r": 0.93}],
        "limits": {"unit-shift": {"number": "geometric mean by that of the others", "amber": 1.5, "red": None}},
    }


def metrics(n: int, events: int) -> dict[str, Any]:
    """A row of metrics."""
    return {
        "n": n,
        "events": events,
        "auc": 0.7812,
        "auc_ci": [0.7012, 0.8449],
        "auc_within": 0.7701,
        "auc_within_ci": [0.6902, 0.8333],
        "auprc": 0.2468,
        "auprc_ci": [0.1514, 0.3757],
        "brier": 0.0671,
        "brier_ci": [0.0522, 0.082],
        "log_loss": 0.2444,
        "log_loss_ci": [0.2017, 0.2871],
        "calibration_slope": 0.62,
        "calibration_slope_ci": [0.36, 0.88],
        "calibration_intercept": 0.41,
        "calibration_intercept_ci": [0.07, 0.75],
        "ece": 0.0212,
    }


def scored_part(hospitals: Sequence[str], shown: Sequence[str]) -> dict[str, Any]:
    """The `test` entry of metrics.json: 400 patients, 40 deaths, 32 expected."""
    return {
        "pooled": metrics(400, 40),
        "sites": {name: metrics(130, 13) if name in shown else SUPPRESSED for name in hospitals},
        "curves": {
            "roc": {
                "false_positive_rate": [0.0, 0.2, 1.0],
                "true_positive_rate": [0.0, 0.6, 1.0],
                "threshold": [1.0, 0.1, 0.01],
            },
            "precision_recall": {"recall": [0.6, 1.0], "precision": [0.25, 0.1], "threshold": [0.1, 0.01]},
            "calibration": {"predicted": [0.04, 0.12], "observed": [0.05, 0.15], "n": [200.0, 200.0]},
            "decision": {
                "threshold": [0.05, 0.1, 0.2],
                "model": [0.07, 0.05, 0.01],
                "treat_all": [0.06, 0.0, -0.1],
                "treat_none": [0.0, 0.0, 0.0],
            },
        },
        "failed": {},
    }


def model() -> dict[str, Any]:
    """model.json."""
    return {
        "file_sha256": "f" * 64,
        "weights_sha256": "e" * 64,
        "preprocessing_sha256": "d" * 64,
        "rounds": 3,
        "trained_phases": ["unimodal", "fusion"],
        "preprocessing": json.dumps({"n": 1200, "events": 120}),
        "kept_by_hospitals": [],
    }


def modality_entry(share: float, *, spread: bool = True) -> dict[str, Any]:
    """A modality of explanations.json."""
    half = min(0.03, share, 1 - share)
    entry = {
        "share": share,
        "share_ci": [round(share - half, 4), round(share + half, 4)],
        "share_range": [round(share - half / 2, 4), round(share + half / 2, 4)],
        "evidence": share >= 0.005,
        "mean_local_share": share,
        "mean_local_share_ci": [share, share],
        "share_present": None,
        "share_present_ci": None,
        "mean_abs": 2 * share,
        "mean_abs_ci": [1.9 * share, 2.1 * share],
        "alone": 2 * share,
        "left_out": 2 * share,
        "se_background": 0.01,
        "n_present": None,
    }
    between = {"tau": 0.02, "i2": 0.4, "hospitals": 5, "site_mean": share, "site_mean_ci": [share - half, share + half]}
    between["prediction_interval"] = [max(share - 2 * half, 0.0), share + 2 * half]
    nothing = dict.fromkeys(("tau", "i2", "hospitals", "site_mean", "site_mean_ci", "prediction_interval"))
    return entry | (between if spread else nothing)


def shares_of(modalities: Sequence[str]) -> dict[str, float]:
    """Shares that fall by half from one modality to the next."""
    weights = [2.0**-i for i in range(len(modalities))]
    return {name: round(weight / sum(weights), 4) for name, weight in zip(modalities, weights, strict=True)}


def feature(name: str, size: float) -> dict[str, Any]:
    """A numeric feature with a hidden group and a histogram."""
    return {
        "name": name,
        "unit": "g/L",
        "n": 400,
        "mean_abs": size,
        "mean_abs_ci": [0.9 * size, 1.1 * size],
        "mean_phi": 0.01,
        "se_sampling": 0.001,
        "correlation": -0.8,
        "groups": [
            {"range": [None, 90.0], "n": 150, "mean_phi": size, "sd_phi": 0.05},
            {"range": [90.0, 120.0], "n": 240, "mean_phi": -size, "sd_phi": 0.04},
            {"range": [120.0, None], **SUPPRESSED},
            {"level": "missing", **SUPPRESSED},
        ],
        "histogram": {"groups": [0, 1], "phi_edges": [0.0], "counts": [[0, 150], [240, 0]]},
    }


def explanation(
    hospitals: Sequence[str], shown: Sequence[str], modalities: Sequence[str], n_features: int, prefix: str
) -> dict[str, Any]:
    """explanations.json."""
    shares = shares_of(modalities)
    row = {name: {"share": share, "share_ci": [share, share], "mean_abs": share} for name, share in shares.items()}
    group = {"n": 200, "events": 20, "modalities": {name: modality_entry(share) for name, share in shares.items()}}
    features = {
        name: [
            *(feature(f"{prefix} {i}", round(0.5 / (i + 1), 4)) for i in range(n_features)),
            {"name": "rare", **SUPPRESSED},
            {"name": "presence", "mean_abs": 0.02, "mean_phi": 0.001},
        ]
        for name in modalities
    }
    return {
        "model_hash": "e" * 64,
        "background_id": "b" * 64,
        "additivity_error": 1e-8,
        "base_logit": 0.0,
        "n": 400,
        "events": 40,
        "feature_patients": 400,
        "part": "test",
        "share_interval": {"method": "refits", "replicates": 50, "reason": None},
        "modalities": {name: modality_entry(share) for name, share in shares.items()},
        "interactions": [{"modalities": list(modalities[:2]), "mean": -0.02, "mean_abs": 0.05}]
        if len(modalities) > 1
        else [],
        "features": features,
        "strata": {"male": {"0": group, "1": group, "missing": SUPPRESSED}},
        "sites": {
            name: {"n": 130, "events": 13, "modalities": row} if name in shown else SUPPRESSED for name in hospitals
        },
        "drift": [
            {"from": 2, "to": 4, "groups": {"all hospitals": {"l1": 0.1, "rank_correlation": 1.0, "top_overlap": 1.0}}}
        ],
        "failed": {},
        "spread_failed": {},
    }


def training(hospitals: Sequence[str], modalities: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Lines of rounds.jsonl: one round of `unimodal` with its last validation, then `fusion`."""
    lines = []
    for number in range(1, rounds + 1):
        line: dict[str, Any] = {
            "round": number,
            "phase": "unimodal" if number == 1 else "fusion",
            "train_loss": 0.9 if number == 1 else 0.3 - 0.01 * number,
            "asked": list(hospitals),
            "answered": list(hospitals),
            "failed": {},
            "n": 400,
            "val_loss": 0.3 - 0.005 * number,
            "val_auc": 0.7 + 0.01 * number,
            "seconds": 1.5,
            "bytes_down": 1_500_000,
            "bytes_up": 2_500_000,
        }
        if number % 2 == 0:
            line["explanation"] = {"background_id": "b", "shares": shares_of(modalities), "sites": {}}
        lines.append(line)
        if number == 1:
            lines.append({**line, "train_loss": None, "val_loss": 0.29})
    return lines
