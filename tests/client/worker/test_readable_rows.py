"""A hospital of few patients keeps out of a study whose sums would show them, unless the study says otherwise."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from client.enrolment.approvals import Approvals
from client.site import Site
from client.worker.answering import Worker
from shared_model.config import Scalar, Settings, parse_settings
from shared_model.privacy.second_moments import count_columns, modality_widths
from shared_model.protocol.messages import (
    BACKGROUND,
    HANDSHAKE,
    PROTOCOL_VERSION,
    STATISTICS,
    TRAIN,
    HandshakeReply,
    Refusal,
    is_message,
)
from shared_model.protocol.study_hash import StudyFile
from tests.server.small_cohort import requests_of_every_kind, small_settings, write_small_cohort

RULE = "training patients fewer than twice the columns of the model"
MakeSite = Callable[[int], Site]


@pytest.fixture
def site_of(tmp_path: Path) -> MakeSite:
    """A hospital with this many patients, three fifths of which train."""

    def make(patients: int) -> Site:
        cohort = write_small_cohort(tmp_path / str(patients), hospitals=1, patients=patients)
        return Site("east", cohort / "east", tmp_path / "cache")

    return make


def _deployed(site: Site, settings: Settings, folder: Path) -> Worker:
    """A worker that answers approved studies only; this one is."""
    approvals = Approvals(folder / "approvals.json")
    approvals.add(StudyFile.of(site.schema, settings, protocol=PROTOCOL_VERSION))
    return Worker(site, approvals=approvals)


def _asked(worker: Worker, settings: Settings, kind: str) -> str:
    """The reason of the refusal; "" where the question was answered."""
    request = requests_of_every_kind(worker.site, settings)[kind]
    reply = worker.answer(kind, request.to_record())
    return Refusal.from_record(reply).reason if is_message(reply, Refusal) else ""


def _untrusting(**changes: Scalar) -> Settings:
    return small_settings(trust_coordinator=False, **changes)


def _least_patients(site: Site, settings: Settings) -> int:
    """So many train that the rule is just met."""
    return 2 * count_columns(site.schema, settings)


def test_columns_of_the_small_study_are_counted_by_hand(site_of: MakeSite) -> None:
    # age and male: value, and whether it is missing; asa: three levels; and the constant one.
    assert count_columns(site_of(60).schema, small_settings()) == 2 + 2 + 3 + 1


@pytest.mark.parametrize("strategy", ["newton", "fedavg"])
@pytest.mark.parametrize("kind", [HANDSHAKE, TRAIN, BACKGROUND])
def test_worker_of_a_deployment_refuses_where_training_patients_are_fewer_than_twice_the_columns(
    site_of: MakeSite, tmp_path: Path, kind: str, strategy: str
) -> None:
    settings = _untrusting(strategy=strategy, head="" if strategy == "newton" else "32")
    few, enough = site_of(20), site_of(40)
    least = _least_patients(few, settings)
    assert len(few.split(settings).train) < least <= len(enough.split(settings).train)

    refused = _asked(_deployed(few, settings, tmp_path), settings, kind)

    assert refused.startswith(RULE)
    for remedy in ("modalities=", "image-embedding=", "strategy=fedavg", "trust-coordinator=true"):
        assert remedy in refused
    assert str(len(few.split(settings).train)) not in refused.replace(f"2 x {least // 2}", "")
    assert RULE not in _asked(_deployed(enough, settings, tmp_path), settings, kind)


def test_worker_answers_where_the_approved_study_trusts_the_coordinator(site_of: MakeSite, tmp_path: Path) -> None:
    settings = small_settings(trust_coordinator=True)

    assert not _asked(_deployed(site_of(20), settings, tmp_path), settings, HANDSHAKE)


def test_worker_refuses_a_study_that_says_so_but_was_approved_without(site_of: MakeSite, tmp_path: Path) -> None:
    worker = _deployed(site_of(20), _untrusting(), tmp_path)

    assert "not approved" in _asked(worker, small_settings(trust_coordinator=True), HANDSHAKE)


def test_worker_of_a_simulation_answers_whatever_its_patients_are(site_of: MakeSite) -> None:
    assert not _asked(Worker(site_of(20)), _untrusting(), HANDSHAKE)


def test_worker_answers_a_study_that_asks_for_no_products(site_of: MakeSite, tmp_path: Path) -> None:
    settings = _untrusting(strategy="fedavg", explain="none")
    worker = _deployed(site_of(20), settings, tmp_path)

    assert not _asked(worker, settings, HANDSHAKE)
    assert not _asked(worker, settings, STATISTICS)
    assert _asked(worker, settings, BACKGROUND).startswith(RULE), "the study does not ask for it, a coordinator may"


def test_handshake_of_a_deployment_takes_part_with_enough_patients(site_of: MakeSite, tmp_path: Path) -> None:
    site, settings = site_of(40), parse_settings({})
    request = requests_of_every_kind(site, small_settings())[HANDSHAKE]
    study = request.study.model_copy(update={"settings": settings.to_config()})

    reply = _deployed(site, settings, tmp_path).answer(
        HANDSHAKE, request.model_copy(update={"study": study}).to_record()
    )

    assert is_message(reply, HandshakeReply), Refusal.from_record(reply).reason


def test_worker_of_a_deployment_refuses_where_those_with_a_modality_are_fewer_than_twice_its_columns(
    tmp_path: Path,
) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1, patients=120, series=True)
    vitals = cohort / "east" / "vitals.csv"
    table = pd.read_csv(vitals)
    few = sorted(set(table["patient_id"]))[:40]
    table[table["patient_id"].isin(few)].to_csv(vitals, index=False)
    site = Site("east", cohort / "east", tmp_path / "cache")
    settings = _untrusting(series_embedding=8)
    assert len(site.split(settings).train) >= _least_patients(site, settings)
    n_train = int(site.patients.present["vitals"][site.split(settings).train].sum())
    assert 10 <= n_train < 2 * modality_widths(site.schema, settings)["vitals"]
    reason = _asked(_deployed(site, settings, tmp_path), settings, HANDSHAKE)
    assert "training patients with vitals fewer than twice its columns" in reason
