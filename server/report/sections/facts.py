"""Sentences about a run that the model card and the TRIPOD+AI checklist both need; "" where the run does not tell."""

from collections.abc import Callable, Mapping

from server.report.cautions import list_cautions
from server.report.content import RunContent
from server.report.shares import tell_interval_meaning, tell_modality
from server.run_folder.records import Config
from shared_model.config import Scalar
from shared_model.evaluation.metric_intervals import Interval
from shared_model.model.untrained_encoders import describe_encoder
from shared_model.pages.numbers import interval, number, percent
from shared_model.pages.wording import Words

Fact = Callable[[RunContent, Words], str]


def _setting(config: Config, key: str) -> Scalar:
    return config.settings.get(key, "")


def tell_title(content: RunContent, words: Words) -> str:
    """The study's name and outcome."""
    if content.config is None:
        return ""
    study = content.config.schema_.study
    return words("facts.title", title=study.title or study.name, outcome=study.outcome or "-")


def tell_hospitals(content: RunContent, words: Words) -> str:
    """How many took part, and who was excluded."""
    if content.config is None:
        return ""
    told = words("facts.hospitals", n=len(content.config.roster), excluded=len(content.config.excluded))
    if content.config.excluded:
        told += " " + words("facts.excluded", names=", ".join(content.config.excluded))
    left = content.hospitals_left()
    return f"{told} {words('facts.hospitals_left', n=len(left))}" if left else told


def tell_flow(content: RunContent, words: Words) -> str:
    """Patients and events of training and test."""
    sentences = []
    training = content.training_counts()
    if training is not None:
        sentences.append(words("facts.training", n=training[0], events=training[1]))
    if content.test is not None and content.test.pooled is not None:
        sentences.append(words("facts.test", n=content.test.pooled.n, events=content.test.pooled.events))
    return " ".join(sentences)


def tell_quality(content: RunContent, words: Words) -> str:
    """Grades of the hospitals."""
    if content.quality is None:
        return ""
    grades = [row.grade if row else "" for row in content.quality.hospitals.values()]
    return words("facts.quality", **{grade: grades.count(grade) for grade in ("green", "amber", "red")})


def tell_inputs(content: RunContent, words: Words) -> str:
    """Modalities, and how many variables."""
    if content.config is None:
        return ""
    schema = content.config.schema_
    parts = [words("facts.static", n=len(schema.static))] if schema.static else []
    parts += [words("facts.series", name=name, n=_count(own, "channels")) for name, own in schema.series.items()]
    parts += [words("facts.events", name=name, n=_count(own, "items")) for name, own in schema.events.items()]
    parts += [words("facts.image", name=name) for name in schema.images]
    parts += [words("facts.further", kind=kind, name=name) for kind, own in schema.further.items() for name in own]
    return words("facts.inputs", parts="; ".join(parts))


def _count(own: Mapping[str, object], key: str) -> int:
    found = own.get(key, ())
    return len(found) if isinstance(found, list | tuple) else 0


def tell_split(content: RunContent, words: Words) -> str:
    """How patients are divided."""
    if content.config is None or "folds" not in content.config.settings:
        return ""
    folds = int(content.config.settings["folds"])
    return words(
        "facts.split",
        seed=str(_setting(content.config, "seed")),
        folds=folds,
        fold=", ".join(map(str, content.folds)) or str(_setting(content.config, "fold")),
        train=f"{100 * (folds - 2) / folds:.3g}",
        val=f"{100 / folds:.3g}",
        test=f"{100 / folds:.3g}",
    )


def tell_missing(content: RunContent, words: Words) -> str:
    """How missing values and modalities are handled."""
    if content.config is None:
        return ""
    parts = [key for key in ("static", "series") if getattr(content.config.schema_, key)]
    return words("facts.missing", parts=" ".join(words(f"facts.missing_{key}") for key in parts)).strip()


def tell_preprocessing(content: RunContent, words: Words) -> str:
    """Common standardisation."""
    return words("facts.preprocessing") if content.config else ""


def tell_model(content: RunContent, words: Words) -> str:
    """Kind of model and how it was trained."""
    if content.config is None:
        return ""
    config = content.config
    is_late = _setting(config, "fusion") == "late"
    phases = [words("facts.phase", phase=phase, strategy=_strategy(config, phase)) for phase in config.phases]
    return words(
        "facts.model",
        fusion=str(_setting(config, "fusion")),
        phases=", ".join(phases) or "-",
        head=words("facts.late_head") if is_late else str(_setting(config, "head")) or words("facts.linear_head"),
        image=describe_encoder(config.settings) if config.images() else words("facts.no_images"),
    )


def _strategy(config: Config, phase: str) -> str:
    """Of a phase: Newton steps fit a linear head that all share, and FedAvg trains the rest (see `uses_newton`)."""
    strategy = str(_setting(config, "strategy"))
    fits_head = phase == "fusion" and _setting(config, "fusion") == "early" and not _setting(config, "local-head")
    return "fedavg" if strategy == "newton" and not fits_head else strategy


def tell_balance(content: RunContent, words: Words) -> str:
    """A sentence on the weight of classes."""
    if content.config is None:
        return ""
    return words("facts.balance", weight=str(_setting(content.config, "class-weight")))


def tell_heterogeneity(content: RunContent, words: Words) -> str:
    """Spread between hospitals of performance and of shares."""
    return " ".join(filter(None, (tell_spread_of_performance(content, words), _tell_spread_of_shares(content, words))))


def tell_spread_of_performance(content: RunContent, words: Words) -> str:
    """Of how many hospitals metrics are shown, and AUC within hospitals."""
    sentences = []
    if content.test is not None:
        shown = [row for row in content.test.sites.values() if row is not None]
        if content.test.sites:
            sentences.append(words("facts.site_rows", shown=len(shown), of=len(content.test.sites)))
        pooled = content.test.pooled
        if pooled is not None and pooled.auc_within is not None:
            within = interval(pooled.auc_within_ci)
            sentences.append(words("facts.within", auc=number(pooled.auc_within), ci=within))
    return " ".join(sentences)


def _tell_spread_of_shares(content: RunContent, words: Words) -> str:
    explanation = content.explanation
    shares = explanation.by_share() if explanation is not None and not explanation.is_single else []
    known = [
        f"{name} {percent(entry.i2, digits=0)}"
        for name, entry in shares
        if entry.i2 is not None and not entry.is_unused
    ]
    return words("facts.i2", told=", ".join(known)) if known else ""


def tell_measures(content: RunContent, words: Words) -> str:
    """Which measures are reported."""
    if content.test is None:
        return ""
    measures = words("facts.measures")
    return measures if content.test.pooled is not None else f"{measures} {words('facts.measures_suppressed')}"


def tell_performance(content: RunContent, words: Words) -> str:
    """AUC with interval, calibration."""
    pooled = content.test.pooled if content.test else None
    if pooled is None:
        return words("facts.performance_suppressed") if content.test else ""
    return words(
        "facts.performance",
        auc=_with_interval(pooled.auc, pooled.auc_ci),
        slope=_with_interval(pooled.calibration_slope, pooled.calibration_slope_ci),
        intercept=_with_interval(pooled.calibration_intercept, pooled.calibration_intercept_ci),
        brier=_with_interval(pooled.brier, pooled.brier_ci, digits=3),
    )


def tell_limits(content: RunContent, words: Words) -> str:
    """Everything to be careful about that the first screen says."""
    return " ".join(list_cautions(content, words))


def _with_interval(value: float | None, ends: Interval | None, *, digits: int = 2) -> str:
    return number(value, digits=digits) + (f" ({interval(ends, digits=digits)})" if ends is not None else "")


def tell_shares(content: RunContent, words: Words) -> str:
    """What the model looks at."""
    if content.explanation is None or content.explanation.suppressed:
        return ""
    if content.explanation.uses_nothing or content.explanation.is_single:
        return words(f"first.shares_{'unused' if content.explanation.uses_nothing else 'single'}")
    told = "; ".join(tell_modality(name, entry, words) for name, entry in content.explanation.by_share())
    return words("facts.shares", told=told) + " " + tell_interval_meaning(content.explanation, words)


def tell_subgroups(content: RunContent, words: Words) -> str:
    """By which variables shares of groups are told."""
    if content.explanation is None or content.explanation.suppressed or content.explanation.is_single:
        return ""
    told = [name for name, groups in content.explanation.strata.items() if any(groups.values())]
    return words("facts.subgroups", strata=", ".join(told)) if told else ""


def tell_output(content: RunContent, words: Words) -> str:
    """What the model gives."""
    return words("facts.output") if content.config else ""


def tell_specification(content: RunContent, words: Words) -> str:
    """Where the whole model stands."""
    if content.model is None:
        return ""
    weights, kept = content.model.weights_sha256[:16], content.model.kept_by_hospitals
    if not kept:
        return words("facts.specification", weights=weights)
    parts = words(f"facts.kept_{'_'.join(sorted(kept))}")
    return words("facts.specification_kept", weights=weights, parts=parts)


def tell_code(content: RunContent, words: Words) -> str:
    """Software and versions."""
    if content.config is None:
        return ""
    versions = ", ".join(f"{name} {version}" for name, version in content.config.packages.items())
    return words("facts.code", versions=versions)
