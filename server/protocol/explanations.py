"""explanations.json: what may be shown of the summed Shapley values, with intervals and the small-cell rule."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from server.protocol.differencing import Band
from server.protocol.explain import CommonBackground, ExplainedPart
from server.protocol.feature_report import describe_features
from server.protocol.plan import StudyPlan
from server.protocol.refits import ShareRefits, share_ranges
from server.protocol.site_rows import hide_rows
from shared_model.model.fusion import MultimodalModel
from shared_model.privacy.suppression import SmallCellRule, suppressed_row
from shared_model.shapley.explanation_quantities import number_or_none
from shared_model.shapley.features import list_features
from shared_model.shapley.shares import combine_hospitals, mean_interval, share_of_means
from shared_model.shapley.strata import MISSING, OUTCOME, Stratum, list_strata, parse_strata

Sums = Mapping[str, np.ndarray]

NO_EVIDENCE = 0.005  # a share that says nothing, and half of the refits below it
MIN_PREDICTED = 5  # hospitals: t with k - 2 degrees of freedom says nothing of the next one where k is 3 or 4
MIN_HIDDEN = 3  # hospitals whose rows are not shown, for the spread between hospitals to be shown beside the others
_SPREAD = ("tau", "i2", "hospitals", "site_mean", "site_mean_ci", "prediction_interval", "prediction_reason")

_FEW_HOSPITALS = f"fewer than {MIN_PREDICTED} hospitals contribute"

DEFINITIONS = {
    "share": "share of means: sum over patients of |phi| of the modality, over that of all modalities",
    "share_ci": "95 % interval by the delta method, test patients drawn anew, the model kept: too narrow for a share "
    "of another model; not for a headline",
    "share_range": "where the share may lie with other patients, by refits of the head on resampled training patients, "
    "over resampled test patients: as far as the refits' central 95 %, or as 1.96 of their standard deviations about "
    "the share, whichever is farther; encoders and preprocessing kept. See share_interval",
    "evidence": "false where the training data do not show that the modality says anything: its penalty ends at the "
    "largest one, or its share is below 0.5 % in half of the refits or more; null without refits",
    "mean_local_share": "mean over patients of the modality's part of their own sum of |phi|",
    "share_present": "share of means over the modalities that each patient has",
    "share_probability": "share of means of the Shapley values of the probability instead of the logit",
    "mean_abs": "mean |phi| over patients, log odds",
    "alone": "mean over patients of |v(modality alone) - v(nobody)|, log odds",
    "left_out": "mean over patients of |v(all) - v(all without the modality)|, log odds",
    "se_background": "mean sd of a patient's phi over background rows / sqrt(rows), log odds; an upper bound of the "
    "standard error, as the rows are spread evenly over the distribution",
    "prediction_interval": "95 % interval for the share at a further hospital, from five hospitals on",
    "features": "means over the patients who have the modality, of levels and counts over those whose group is shown; "
    "se_sampling and correlation over all who have it; presence, over all patients",
    "presence": "effect of having or lacking the modality at all, against background rows where it is the other way",
}


CLOSED_FORM = {"modalities": "closed form", "features": "closed form"}  # of a linear head: exact, nothing is sampled
ENUMERATED = {"modalities": "enumeration of coalitions", "features": "sampled orders"}


def describe_explanation(
    plan: StudyPlan,
    model: MultimodalModel,
    background: CommonBackground,
    explained: ExplainedPart,
    *,
    ranges: ShareRefits,
    model_hash: str,
    evaluated: Collection[str],
) -> dict[str, Any]:
    """What explanations.json says of one model; numbers have four digits, as more would help to solve for a patient.

    Args:
        plan: the run's constants.
        model: for names and widths; its weights are not read.
        background: that the values were computed against.
        explained: sums of the hospitals.
        ranges: shares of refitted heads.
        model_hash: hash of the explained weights.
        evaluated: hospitals that metrics.json counts. If others were explained, subtracting the two files' counts would
            give one hospital's: counts, strata, features and hospitals' rows are then left out.
    """
    total, rule = explained.total, plan.rule
    n, events = int(total["n"][0]), int(total["events"][0])
    allowed, sites = hide_rows(explained.rows, n=n, events=events, rule=rule, known_rows=1)
    head = {
        "model_hash": model_hash,
        "background_id": background.background_id,
        "background": {"kind": "common", "rows": plan.settings.background_rows},
        "engine": dict(CLOSED_FORM if model.is_linear else ENUMERATED),
        "definitions": DEFINITIONS,
        "failed": explained.attendance.failed,
        "spread_failed": explained.spread_failed,
    }
    if not allowed:
        return {**head, **suppressed_row(), "sites": rounded(sites)}
    same = set(evaluated) == set(explained.rows)
    if not same:
        sites = {name: dict(suppressed_row()) for name in sites}
    strata = _describe_strata(model.modalities, list_strata(plan.schema, plan.settings), total, rule) if same else {}
    content = {
        "base_logit": background.base_logit,
        "n": n if same else None,
        "events": events if same else None,
        "share_interval": describe_share_interval(ranges),
        "modalities": describe_modalities(model.modalities, explained, rule, ranges=ranges, sites=sites, counted=same),
        "interactions": _describe_interactions(model.modalities, total),
        "feature_patients": int(total["feature-patients"]) if same and "feature-patients" in total else None,
        "features": _describe_all_features(plan, model, total, strata) if same else {},
        "strata": strata,
        "sites": sites,
    }
    return {**head, "additivity_error": float(total["additivity-error"][0] / n), **rounded(content)}


def rounded(content: Any) -> Any:
    """The same JSON with every real number to four significant digits."""
    if isinstance(content, float):
        return float(f"{content:.4g}")
    if isinstance(content, Mapping):
        return {key: rounded(value) for key, value in content.items()}
    return [rounded(value) for value in content] if isinstance(content, list | tuple) else content


def _describe_all_features(
    plan: StudyPlan, model: MultimodalModel, total: Sums, strata: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Features of each modality that enough hospitals have."""
    hidden = {
        own.variable
        for s, own in enumerate(list_strata(plan.schema, plan.settings))
        if own.variable and total["n"][s] and strata[own.variable][own.label] == suppressed_row()
    }
    bands = _list_bands(plan, strata)
    described: dict[str, Any] = {}
    for i, (name, features) in enumerate(list_features(model, plan.schema, plan.preprocessing).items()):
        if f"{name}/n" not in total:
            continue
        enough = total["sites-present"][i] >= plan.rule.min_sites
        # The groups of a column's values would give back its hidden strata.
        shown = describe_features(name, features, total, plan.rule, without_groups=hidden, bands=bands)
        described[name] = shown if enough else dict(suppressed_row())
    return described


def _list_bands(plan: StudyPlan, strata: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Band]]:
    """The shown strata of each numeric column."""
    found: dict[str, list[Band]] = {}
    for banding in parse_strata(plan.settings.strata):
        groups = [row for label, row in strata.get(banding.column, {}).items() if label != MISSING]
        ends = pairwise((-math.inf, *banding.edges, math.inf))
        if banding.edges and groups:
            found[banding.column] = [
                Band(*pair, int(row["n"])) for pair, row in zip(ends, groups, strict=True) if row != suppressed_row()
            ]
    return found


def describe_modalities(
    names: Sequence[str],
    explained: ExplainedPart,
    rule: SmallCellRule,
    *,
    ranges: ShareRefits,
    sites: Mapping[str, Any],
    counted: bool,
) -> dict[str, dict[str, Any]]:
    """Per modality, shares and sizes over all patients, and the spread between hospitals.

    The spread rests on one share and one variance a hospital: beside all rows but one or two it would give those back.
    """
    entries = _describe_group(names, explained.total, 0, rule, counted=counted)
    found = _describe_ranges(names, ranges, [entry.get("share") for entry in entries.values()])
    entries = {name: entry | found[name] for name, entry in entries.items()}
    n_shown = sum(row != suppressed_row() for row in sites.values())
    n_hidden = int(explained.total["sites"][0]) - n_shown
    nothing = dict.fromkeys(_SPREAD)
    if explained.spread is None or 0 < n_hidden < MIN_HIDDEN:
        return {name: entry | nothing for name, entry in entries.items()}
    between = combine_hospitals(explained.spread, tau2=explained.tau2)
    for i, name in enumerate(names):
        few = between.k[i] < MIN_PREDICTED
        entries[name] |= {
            "tau": number_or_none(np.sqrt(explained.tau2[i])),
            "i2": number_or_none(explained.i2[i]),
            "hospitals": int(between.k[i]),
            "site_mean": number_or_none(between.mean[i]),
            "site_mean_ci": _pair(between.interval[i]),
            "prediction_interval": None if few else _pair(between.prediction[i]),
            "prediction_reason": _FEW_HOSPITALS if few else None,
        }
    return entries


def describe_share_interval(ranges: ShareRefits) -> dict[str, Any]:
    """How `share_range` was made: `method` is refits or none; where it is none, why (`reason`)."""
    n = len(ranges.shares)
    return {"method": "none" if ranges.reason else "refits", "replicates": n, "reason": ranges.reason or None}


def _describe_ranges(
    names: Sequence[str], ranges: ShareRefits, shares: Sequence[float | None]
) -> dict[str, dict[str, Any]]:
    """Per modality `share_range` and `evidence`: both null without refits.

    To be shown as "range over refits", and a modality without evidence as "no evidence" in place of its share: 0.0 %
    (0.0-0.0) is never the truth. The delta method's `share_ci` is no substitute.
    """
    if ranges.reason:
        return {name: {"share_range": None, "evidence": None} for name in names}
    ends = share_ranges(np.array([np.nan if share is None else share for share in shares]), ranges.shares)
    small = (ranges.shares < NO_EVIDENCE).mean(axis=0) >= 0.5
    evidence = ~(ranges.at_limit | small)
    return {name: {"share_range": _pair(ends[i]), "evidence": bool(evidence[i])} for i, name in enumerate(names)}


def _describe_group(
    names: Sequence[str], total: Sums, s: int, rule: SmallCellRule, *, counted: bool
) -> dict[str, dict[str, Any]]:
    """Shares and sizes of one stratum; how many have each modality only if that is asked for."""
    n = float(total["n"][s])
    having = [rule.shown_count(int(present), int(n)) for present in total["present"][s]]
    if (total["sites-present"] < rule.min_sites).any():
        having = [None] * len(names)
    shares = share_of_means(n, total["abs"][s], total["outer"][s])
    present = share_of_means(n, total["abs-present"][s], total["outer-present"][s])
    few = None in having  # then the difference of the two denominators is that of a few patients
    probability = share_of_means(n, total["abs-probability"][s], np.zeros((len(names), len(names))))
    entries = {}
    for i, name in enumerate(names):
        entries[name] = {
            "share": number_or_none(shares.share[i]),
            "share_ci": _pair(shares.interval[i]),
            "mean_local_share": float(total["local"][s, i] / n),
            "mean_local_share_ci": _pair(mean_interval(n, total["local"][s, i], total["local-square"][s, i])),
            "share_present": None if few else number_or_none(present.share[i]),
            "share_present_ci": None if few else _pair(present.interval[i]),
            "share_probability": number_or_none(probability.share[i]),
            "mean_abs": float(total["abs"][s, i] / n),
            "mean_abs_ci": _pair(mean_interval(n, total["abs"][s, i], total["outer"][s, i, i])),
            "alone": float(total["alone"][s, i] / n),
            "left_out": float(total["left-out"][s, i] / n),
            "se_background": float(total["se-background"][s, i] / n),
            "n_present": having[i] if counted else None,
        }
    return entries


def _describe_interactions(names: Sequence[str], total: Sums) -> list[dict[str, Any]]:
    """Pairwise Shapley interaction index, mean and mean size over patients, log odds; largest first."""
    n = float(total["n"][0])
    pairs = [
        {
            "modalities": [names[i], names[j]],
            "mean": float(total["interactions"][0, i, j] / n),
            "mean_abs": float(total["interactions-abs"][0, i, j] / n),
        }
        for i, j in combinations(range(len(names)), 2)
    ]
    return sorted(pairs, key=lambda pair: -float(pair["mean_abs"]))


def _describe_strata(
    names: Sequence[str], strata: Sequence[Stratum], total: Sums, rule: SmallCellRule
) -> dict[str, dict[str, Any]]:
    """Per variable and group, counts and shares, or the suppressed row."""
    variables: dict[str, dict[str, Any]] = {}
    for variable in dict.fromkeys(stratum.variable for stratum in strata if stratum.variable):
        groups: dict[str, dict[str, Any]] = {}
        empty = {own.label for i, own in enumerate(strata) if own.variable == variable and not total["n"][i]}
        for s, stratum in enumerate(strata):
            if stratum.variable == variable:
                n, events = int(total["n"][s]), int(total["events"][s])
                shown = n >= rule.min_patients if variable == OUTCOME else rule.may_release(n, events)
                shown = shown and total["sites"][s] >= rule.min_sites
                groups[stratum.label] = {"s": s, "n": n, "events": events} if shown else dict(suppressed_row())
        if variable == OUTCOME:
            # Of two groups that make up the whole, one hidden beside one shown is no secret.
            if any(row == suppressed_row() for row in groups.values()):
                groups = {label: dict(suppressed_row()) for label in groups}
        else:
            # A group of nobody has nothing to hide; it looks like a hidden one all the same.
            filled = {label: row for label, row in groups.items() if label not in empty}
            _, filled = hide_rows(filled, n=int(total["n"][0]), events=int(total["events"][0]), rule=rule, known_rows=0)
            groups |= filled
        variables[variable] = {
            label: row
            if row == suppressed_row()
            else {
                "n": row["n"],
                "events": row["events"],
                "modalities": _describe_group(names, total, row["s"], rule, counted=False),
            }
            for label, row in groups.items()
        }
    return variables


def _pair(interval: Sequence[float] | np.ndarray) -> list[float | None] | None:
    ends = [number_or_none(end) for end in interval]
    return None if None in ends else ends
