import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from flwr.app import RecordDict

from client.enrolment.approvals import Approvals
from client.worker.answering import Worker
from server.protocol.hospitals import Hospitals
from server.protocol.link import Answer, Link
from server.protocol.roster import Roster, shake_hands, wait_for_nodes
from shared_model.config import Settings
from shared_model.errors import StudyError
from shared_model.protocol.messages import PROTOCOL_VERSION, HandshakeReply, Refusal, StudyReference
from shared_model.protocol.study_hash import StudyFile
from shared_model.schema import load_schema, parse_schema
from simulation.in_process import InProcessLink
from tests.server.faulty_links import ScriptedLink
from tests.server.small_cohort import STATIC_SCHEMA, open_workers, small_settings, write_small_cohort
from tests.waiting import PATIENCE_S

STUDY = StudyReference(run_id="run", protocol=PROTOCOL_VERSION, schema_sha256="0" * 64, settings={})


def _agree(site: str) -> RecordDict:
    return HandshakeReply(site=site, version="1", modalities=["static"]).to_record()


def _link(*records: RecordDict) -> ScriptedLink:
    return ScriptedLink(len(records), lambda _, node, __: Answer(node, records[node]))


def _shake_hands(
    link: Link, settings: Settings, *, study: StudyReference = STUDY, enrolled: Mapping[int, str] | None = None
) -> Roster:
    schema = parse_schema(STATIC_SCHEMA, source="schema.toml")
    return shake_hands(Hospitals(link, study, schema, settings, names={}), enrolled=enrolled)


def test_handshake_excludes_a_refusing_site_by_name_and_reason() -> None:
    link = _link(_agree("south"), Refusal(site="north", reason="schema differs").to_record(), _agree("east"))

    roster = _shake_hands(link, small_settings(min_sites=2))

    assert roster.names == {2: "east", 0: "south"}
    assert list(roster.names.values()) == ["east", "south"]
    assert roster.excluded == {"north": "schema differs"}
    assert roster.modalities == {"east": ["static"], "south": ["static"]}


def test_handshake_takes_one_of_two_sites_with_one_name_and_says_so() -> None:
    roster = _shake_hands(_link(_agree("east"), _agree("east"), _agree("south")), small_settings(min_sites=2))

    assert sorted(roster.names.values()) == ["east", "south"]
    assert len(roster.excluded) == 1
    (reason,) = roster.excluded.values()
    assert reason == "site name east: expected a name of its own, got one that is taken."


def test_handshake_fails_with_every_reason_when_too_few_agree() -> None:
    refusals = [Refusal(site=name, reason=f"{name} has no data").to_record() for name in ("north", "south")]

    with pytest.raises(StudyError) as caught:
        _shake_hands(_link(_agree("east"), *refusals), small_settings(min_sites=2))

    assert str(caught.value).splitlines() == [
        "handshake: expected answers of at least 2 hospitals (min-sites), got 1 of 3. Failed:",
        "  north: north has no data",
        "  south: south has no data",
    ]


def test_handshake_takes_no_other_name_than_the_one_that_the_nodes_key_was_enrolled_with() -> None:
    enrolled = {0: "east", 1: "south", 2: "north"}
    refused = Refusal(site="east", reason="no data").to_record()

    link = _link(_agree("east"), _agree("east"), refused, _agree("west"))  # the last was not connected then
    roster = _shake_hands(link, small_settings(min_sites=1), enrolled=enrolled)

    assert roster.names == {0: "east"}
    assert roster.excluded == {
        "north": "no data",
        "south": "site name: expected south, as its key was enrolled, got east. Mend hospital.toml there.",
    }


def test_hospital_with_another_version_of_a_package_is_excluded_by_name_and_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it adds has the same name and may have the same shapes, and is another thing."""
    monkeypatch.setattr(
        "server.protocol.roster.used_extensions", lambda *_: {"image_encoders small-cnn": "hipfed-small-cnn 1.2"}
    )
    same, other = ({"image_encoders small-cnn": f"hipfed-small-cnn {version}"} for version in ("1.2", "1.3"))
    replies = [
        HandshakeReply(site=name, version="1", modalities=["static"], extensions=extensions).to_record()
        for name, extensions in (("east", same), ("north", other), ("south", {}), ("west", same))
    ]

    roster = _shake_hands(_link(*replies), small_settings(min_sites=2))

    assert sorted(roster.names.values()) == ["east", "west"]
    assert {reason.partition(",")[0] for reason in roster.excluded.values()} == {
        "package of image_encoders small-cnn: expected the coordinator's hipfed-small-cnn 1.2"
    }


def test_handshake_waits_for_every_hospital_that_was_connected_and_names_one_that_stays_away() -> None:
    link = _link(_agree("east"), _agree("south"), _agree("north"))
    enrolled = {0: "east", 1: "south", 2: "north", 8: "west"}
    come = iter([frozenset({0, 1}), frozenset({0, 1}), frozenset({0, 1, 2})])
    link.nodes = lambda: next(come, frozenset({0, 1, 2}))  # type: ignore[method-assign]

    roster = _shake_hands(link, small_settings(min_sites=2, wait_s=2.0), enrolled=enrolled)

    assert sorted(roster.names.values()) == ["east", "north", "south"]
    assert roster.excluded == {
        "west": "its SuperNode was not connected at the handshake, nor within wait-s (see `hipfed-server status`)"
    }


@pytest.mark.parametrize("name", ["", "../east", "a/b", "line\nbreak", "x" * 201])
def test_handshake_refuses_a_site_name_that_could_not_be_a_folder_or_a_line(name: str) -> None:
    record = _agree("west")
    record.config_records["header"]["json"] = HandshakeReply.model_construct(
        site=name, version="1", modalities=[]
    ).model_dump_json()

    roster = _shake_hands(_link(_agree("east"), record), small_settings(min_sites=1))

    assert list(roster.names.values()) == ["east"]
    assert list(roster.excluded) == ["node 1"]


def test_waiting_ends_with_an_error_when_too_few_hospitals_connect() -> None:
    settings = small_settings(min_sites=2, wait_s=0.05)

    with pytest.raises(StudyError, match=r"at least 2 hospitals within 0\.05 s \(min-sites\), got 1"):
        wait_for_nodes(_link(_agree("east")), settings, poll_s=0.01)


def test_waiting_goes_on_with_min_sites_when_expected_ones_stay_away() -> None:
    settings = small_settings(min_sites=1, expected_sites=5, wait_s=0.05)
    started = time.monotonic()

    nodes = wait_for_nodes(_link(_agree("east")), settings, poll_s=0.01)

    assert nodes == {0}
    assert time.monotonic() - started >= 0.05


def test_waiting_ends_at_once_when_all_expected_are_there() -> None:
    started = time.monotonic()

    wait_for_nodes(_link(_agree("east")), small_settings(min_sites=1, expected_sites=1, wait_s=PATIENCE_S))

    assert time.monotonic() - started < PATIENCE_S


def test_handshake_names_the_reason_of_every_hospital_that_does_not_fit(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=4)
    schema = load_schema(cohort / "schema.toml")
    other = (cohort / "schema.toml").read_text().replace("range = [0, 120]", "range = [0, 130]")
    (cohort / "north" / "schema.toml").write_text(other)
    table = cohort / "south" / "patients.csv"
    table.write_text(table.read_text().replace(",1\n", ",IX\n"))
    short = (cohort / "west" / "patients.csv").read_text().splitlines()[:10]
    (cohort / "west" / "patients.csv").write_text("\n".join(short) + "\n")
    study = STUDY.model_copy(update={"schema_sha256": schema.sha256})

    roster = _shake_hands(
        InProcessLink(open_workers(cohort, tmp_path / "cache")), small_settings(min_sites=1), study=study
    )

    n_wrong = table.read_text().count(",IX\n")
    assert list(roster.names.values()) == ["east"]
    assert set(roster.excluded) == {"north", "south", "west"}
    assert roster.excluded["north"].startswith("schema: expected the study with hash " + schema.sha256[:12])
    assert roster.excluded["south"] == f"data check failed: unknown-level ({n_wrong})"
    assert (
        roster.excluded["west"] == "patients: expected at least 10 in the training part and 1 in each other, got fewer."
    )


def _deployed(cohort: Path, folder: Path, settings: Settings) -> list[Worker]:
    """Workers as in a deployment, that approved the study of these settings."""
    workers = []
    for worker in open_workers(cohort, folder / "cache"):
        approvals = Approvals(folder / worker.site.name / "approvals.json")
        approvals.path.parent.mkdir(parents=True)
        approvals.add(StudyFile.of(worker.site.schema, settings, protocol=PROTOCOL_VERSION))
        workers.append(Worker(worker.site, approvals=approvals))
    return workers


def _shake_deployed(cohort: Path, folder: Path, settings: Settings) -> Roster:
    workers = _deployed(cohort, folder, settings)
    study = STUDY.model_copy(update={"schema_sha256": workers[0].site.schema.sha256, "settings": settings.to_config()})
    return _shake_hands(InProcessLink(workers), settings, study=study)


def _shrink(folder: Path) -> None:
    """Leave every third patient."""
    table = pd.read_csv(folder / "patients.csv")
    table[::3].to_csv(folder / "patients.csv", index=False)


def test_hospital_whose_patients_could_be_computed_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=4)
    _shrink(cohort / "north")

    roster = _shake_deployed(cohort, tmp_path, small_settings(trust_coordinator=False))

    assert list(roster.names.values()) == ["east", "south", "west"]
    assert roster.excluded["north"].startswith("training patients fewer than twice the columns of the model (2 x 8): ")


def test_handshake_without_quorum_names_what_lets_small_hospitals_take_part(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=3)
    _shrink(cohort / "north")

    with pytest.raises(StudyError, match="expected answers of at least 3 hospitals") as caught:
        _shake_deployed(cohort, tmp_path, small_settings(trust_coordinator=False))

    for remedy in ("modalities=", "image-embedding=", "strategy=fedavg", "trust-coordinator=true"):
        assert remedy in str(caught.value)


def test_trusted_coordinator_is_answered_by_small_hospitals_too(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=3)
    _shrink(cohort / "north")

    roster = _shake_deployed(cohort, tmp_path, small_settings(trust_coordinator=True))

    assert list(roster.names.values()) == ["east", "north", "south"]
