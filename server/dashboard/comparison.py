"""Runs side by side: metrics, what the models look at, and the settings in which they differ."""

from collections.abc import Sequence

from server.dashboard.records import RunDetail
from server.report.shares import tell_range, tell_share
from server.run_folder.explanation import PRESENCE, Explanation
from server.run_folder.records import Config
from shared_model.evaluation.metrics import Metrics
from shared_model.pages.blocks import Block, Cell, Figure, Notice, Section, Table, Text
from shared_model.pages.escaping import isolated
from shared_model.pages.numbers import SUPPRESSED, interval, number
from shared_model.pages.plots import axis, layout, name_axis, points_with_intervals, reference_line, rows_height
from shared_model.pages.wording import Words

MOST_RUNS = 6
MOST_FEATURES = 10
_METRICS = ("auc", "auc_within", "auprc", "brier", "log_loss", "calibration_slope", "calibration_intercept", "ece")


def describe_comparison(runs: Sequence[RunDetail], words: Words) -> tuple[Section, ...]:
    """Sections of the comparison of two or more runs."""
    return (_compare_metrics(runs, words), _compare_explanations(runs, words), _compare_settings(runs, words))


def _pooled(run: RunDetail) -> Metrics | None:
    return run.summary.tested.part.pooled if run.summary.tested else None


def _compare_metrics(runs: Sequence[RunDetail], words: Words) -> Section:
    blocks: list[Block] = [Notice(words(f"compare.{key}")) for key in ("overlap", *_list_cautions(runs))]
    if any(pooled is not None and pooled.auc is not None for pooled in map(_pooled, runs)):
        blocks.append(_draw_auc(runs, words))
    rows: list[tuple[Cell, ...]] = [
        (words("compare.state"), *(words(f"state.{run.summary.state}") for run in runs)),
        (words("compare.study"), *(run.summary.study or None for run in runs)),
        (words("compare.hospitals"), *(run.summary.n_hospitals for run in runs)),
        (words("compare.rounds"), *(run.summary.last.round if run.summary.last else None for run in runs)),
    ]
    rows += [(words(f"compare.{key}"), *(_show_count(run, key) for run in runs)) for key in ("n", "events")]
    rows += [(words(f"compare.{key}"), *(_show_metric(run, key) for run in runs)) for key in _METRICS]
    columns = (words("compare.metric"), *(run.summary.name for run in runs))
    blocks.append(Table(words("compare.metrics_caption"), columns, tuple(rows), "metrics"))
    return Section("metrics", words("compare.metrics"), tuple(blocks))


def _list_cautions(runs: Sequence[RunDetail]) -> list[str]:
    known = [(run, run.config) for run in runs if run.config is not None]
    hospitals = {_counted(run, config) for run, config in known}
    tested = {(_test_patients(run, config), _counted(run, config)) for run, config in known}
    if len({config.schema_sha256 for _, config in known}) > 1:
        found = ["other_study"]
    else:
        found = ["other_test"] if len(tested) > 1 else []
    return [*found, "other_hospitals"] if len(hospitals) > 1 else found


def _counted(run: RunDetail, config: Config) -> frozenset[str]:
    """Hospitals whose patients the run's numbers count, or will count."""
    tested = run.summary.tested
    # One that failed in a fold is counted in the others.
    failed = tested.part.failed if tested is not None and not tested.folds else {}
    return frozenset(member.site for member in config.roster) - frozenset(failed)


def _test_patients(run: RunDetail, config: Config) -> tuple[str, ...]:
    """What decides which of a hospital's patients are tested; the config of pooled folds is the first one's."""
    pooled = run.summary.tested.folds if run.summary.tested else ()
    fold = ",".join(map(str, pooled)) or str(config.settings.get("fold"))
    return (str(config.settings.get("seed")), str(config.settings.get("folds")), fold)


def _show_count(run: RunDetail, key: str) -> Cell:
    pooled = _pooled(run)
    if pooled is None:
        return SUPPRESSED if run.summary.tested else None
    return int(getattr(pooled, key))


def _show_metric(run: RunDetail, key: str) -> Cell:
    pooled = _pooled(run)
    if pooled is None:
        return SUPPRESSED if run.summary.tested else None
    value = getattr(pooled, key)
    if value is None:
        return None
    ends = getattr(pooled, f"{key}_ci", None)
    return number(value, digits=3) + (f" ({interval(ends, digits=3)})" if ends else "")


def _draw_auc(runs: Sequence[RunDetail], words: Words) -> Figure:
    names = [run.summary.name for run in runs]
    values = [pooled.auc if (pooled := _pooled(run)) else None for run in runs]
    ends = [pooled.auc_ci if (pooled := _pooled(run)) else None for run in runs]
    points = points_with_intervals(words("compare.value"), list(range(len(runs))), values, ends, series=0)
    chance = reference_line(words("compare.chance"), [0.5, 0.5], [-0.5, len(runs) - 0.5])
    told = ", ".join(
        f"{name} {number(value)} ({interval(end)})" for name, value, end in zip(names, values, ends, strict=True)
    )
    return Figure(
        name="compared-auc",
        title=words("compare.auc_title"),
        alt=words("compare.auc_alt", n=len(runs), values=told),
        caption=words("compare.auc_caption"),
        data=[chance, points],
        layout=layout(axis(words("compare.auc_axis"), zeroline=False), name_axis(names), showlegend=False),
        table=Table(
            words("compare.auc_title"),
            tuple(words(f"compare.{key}") for key in ("run", "value", "low", "high")),
            tuple((name, value, *(end or (None, None))) for name, value, end in zip(names, values, ends, strict=True)),
            "compared-auc",
        ),
        height=rows_height(len(runs)),
    )


def _compare_explanations(runs: Sequence[RunDetail], words: Words) -> Section:
    title = words("compare.explanations")
    told = [(run, run.explanation) for run in runs if run.explanation and not run.explanation.suppressed]
    if not told:
        return Section("explanations", title, (Text(words("compare.no_explanation")),))
    explained = {run.summary.name: explanation for run, explanation in told}
    shares = _draw_shares(explained, words)
    features = _tabulate_features(explained, words)
    return Section("explanations", title, (shares, *((features,) if features.rows else ())))


def _draw_shares(explained: dict[str, Explanation], words: Words) -> Figure:
    modalities = list(dict.fromkeys(name for one in explained.values() for name, _ in one.by_share()))
    step = 0.7 / len(explained)
    traces = []
    for i, (run, one) in enumerate(explained.items()):
        entries = [one.modalities.get(name) for name in modalities]
        rows = [row + step * (i - (len(explained) - 1) / 2) for row in range(len(modalities))]
        values, ends = (
            [e.share if e else None for e in entries],
            [e.share_range if e and not (one.is_single or e.is_unused) else None for e in entries],
        )
        traces.append(points_with_intervals(run, rows, values, ends, series=i))
    cells = tuple((name, *(_show_share(one, name, words) for one in explained.values())) for name in modalities)
    return Figure(
        name="compared-shares",
        title=words("compare.shares_title"),
        alt=words("compare.shares_alt", n=len(modalities), runs=len(explained)),
        caption=words("compare.shares_caption"),
        data=traces,
        layout=layout(axis(words("compare.shares_axis"), rangemode="tozero", tickformat=".0%"), name_axis(modalities)),
        table=Table(words("compare.shares_title"), (words("compare.modality"), *explained), cells, "compared-shares"),
        height=rows_height(len(modalities) * 2) + 30,
    )


def _show_share(one: Explanation, name: str, words: Words) -> str:
    entry = one.modalities.get(name)
    if entry is None:
        return words("compare.absent")
    beside = "" if one.is_single else tell_range(entry, words)
    return tell_share(entry, words) + (f" ({beside})" if beside else "")


def _tabulate_features(explained: dict[str, Explanation], words: Words) -> Table:
    found: dict[tuple[str, str], dict[str, str]] = {}
    strength: dict[tuple[str, str], float] = {}
    for run, one in explained.items():
        for modality, features in one.features.items():
            for feature in features or ():
                key = (modality, feature.name)
                if feature.mean_abs is None or feature.name == PRESENCE:
                    continue
                ends = f" ({interval(feature.mean_abs_ci, digits=3)})" if feature.mean_abs_ci else ""
                found.setdefault(key, {})[run] = number(feature.mean_abs, digits=3) + ends
                strength[key] = max(strength.get(key, 0.0), feature.mean_abs)
    strongest = sorted(found, key=lambda key: -strength[key])[:MOST_FEATURES]
    absent = words("compare.absent")
    rows = tuple(
        (f"{isolated(name)} ({isolated(modality)})", *(found[modality, name].get(run, absent) for run in explained))
        for modality, name in strongest
    )
    return Table(words("compare.features_caption"), (words("compare.feature"), *explained), rows, "compared-features")


def _compare_settings(runs: Sequence[RunDetail], words: Words) -> Section:
    settings = [dict(run.config.settings) if run.config else {} for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = tuple(
        (key, *(str(one[key]) if key in one else None for one in settings))
        for key in keys
        if len({str(one.get(key)) for one in settings}) > 1
    )
    columns = (words("compare.setting"), *(run.summary.name for run in runs))
    block = (
        Table(words("compare.settings_caption"), columns, rows, "settings")
        if rows
        else Text(words("compare.settings_none"))
    )
    return Section("settings", words("compare.settings"), (block,))
