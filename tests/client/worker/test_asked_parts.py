import pytest

from client.site import Site
from client.worker.answering import Worker
from shared_model.protocol.messages import Refusal, is_message
from shared_model.protocol.questions import QUESTIONS
from tests.server.small_cohort import requests_of_every_kind, small_settings


@pytest.mark.parametrize("kind", [kind for kind, question in QUESTIONS.items() if question.part])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_question_about_one_part_is_refused_about_another(small_site: Site, kind: str, part: str) -> None:
    settings = small_settings(strategy="newton", share_refits=3)
    request = requests_of_every_kind(small_site, settings)[kind].model_copy(update={"part": part})

    reply = Worker(small_site).answer(kind, request.to_record())

    if part == QUESTIONS[kind].part:
        assert not is_message(reply, Refusal)
    else:
        assert Refusal.from_record(reply).reason == (
            f"{kind}: expected a question about the {QUESTIONS[kind].part} part, got {part}."
        )
