"""Drift of the explanation during training: shares of every K-th round, and distances between them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from scipy.stats import spearmanr

from server.protocol.explain import draw_background, explain_part
from server.protocol.plan import StudyPlan
from server.protocol.site_rows import hide_rows
from server.protocol.whole_model import WholeModel
from server.run_folder.checkpoints import Progress
from shared_model.config import Phase, Settings
from shared_model.privacy.suppression import suppressed_row
from shared_model.shapley.explanation_quantities import number_or_none
from shared_model.shapley.shares import share_of_means

ALL = "all hospitals"
TOP = 2


def explains_round(settings: Settings, phase: Phase, round_number: int) -> bool:
    """True if the model that this round made is to be explained; in phase `unimodal` nothing is fused yet."""
    every = settings.explain_every
    return settings.explain != "none" and every > 0 and phase != "unimodal" and round_number % every == 0


def explain_round(plan: StudyPlan, phase: Phase, progress: Progress) -> dict[str, Any]:
    """Shares of the current model on the validation part, for rounds.jsonl: of all hospitals, and of released rows.

    Raises:
        StudyError: no quorum.
    """
    model = WholeModel(plan, progress, phase=phase)
    background = draw_background(model, progress.weights)
    explained = explain_part(model, background, part="val", features=False)
    total = explained.total
    n, events = int(total["n"][0]), int(total["events"][0])
    allowed, rows = hide_rows(explained.rows, n=n, events=events, rule=plan.rule, known_rows=1)
    names = plan.settings.chosen_modalities(plan.schema)
    shares = share_of_means(float(n), total["abs"][0], total["outer"][0]).share
    pooled = {name: number_or_none(share) for name, share in zip(names, shares, strict=True)}
    sites = {
        site: dict(row) if row == suppressed_row() else {name: row["modalities"][name]["share"] for name in names}
        for site, row in rows.items()
    }
    return {
        "background_id": background.background_id,
        "shares": pooled if allowed else dict(suppressed_row()),
        "sites": sites,
    }


def describe_drift(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """From each explained round to the next: distances of the shares, of all hospitals and of each that releases them.

    Returns:
        Per pair of rounds `from`, `to`, and per group (`all hospitals`, hospital's name) `l1` (sum of absolute changes
        of the shares, 0 to 2), `rank_correlation` (Spearman; None where all shares are equal) and `top_overlap` (part
        of the TOP largest modalities that stayed).
    """
    explained = [(line["round"], _groups(line["explanation"])) for line in rounds if "explanation" in line]
    drift = []
    for (before, old), (after, new) in pairwise(explained):
        both = [group for group in new if group in old]
        drift.append(
            {"from": before, "to": after, "groups": {group: _distance(old[group], new[group]) for group in both}}
        )
    return drift


def _groups(explanation: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Shares by group, without those that are suppressed or not defined."""
    groups = {ALL: explanation["shares"], **explanation["sites"]}
    return {
        name: shares for name, shares in groups.items() if shares != suppressed_row() and None not in shares.values()
    }


def _distance(old: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float | None]:
    names = sorted(old)
    before, after = [old[name] for name in names], [new[name] for name in names]
    constant = len(set(before)) < 2 or len(set(after)) < 2
    k = min(TOP, len(names))
    kept = set(sorted(names, key=lambda name: -old[name])[:k]) & set(sorted(names, key=lambda name: -new[name])[:k])
    return {
        "l1": sum(abs(a - b) for a, b in zip(before, after, strict=True)),
        "rank_correlation": None if constant else number_or_none(float(spearmanr(before, after).statistic)),
        "top_overlap": len(kept) / k,
    }
