"""Questions of secure sums that have the right form and belong to no session."""

from shared_model.protocol.messages import CONFIRM, KEYS, OPEN, SHARES, TEXTS, Request, StudyReference
from shared_model.protocol.sum_messages import (
    ConfirmRequest,
    KeysRequest,
    Offer,
    OpenRequest,
    SharesRequest,
    TextsRequest,
)

SESSION = "cd" * 32


def sum_requests(study: StudyReference) -> dict[str, Request]:
    """One of each kind."""
    members = {name: f"{i:064x}" for i, name in enumerate(("east", "north", "south"))}
    offer = Offer(channel="ab" * 32, rounds=("cd" * 32,), seeds=("ef" * 32,), signature="01" * 64)
    answered = tuple(members)
    return {
        KEYS: KeysRequest(
            study=study, purpose=f"{study.run_id} 1", members=members, threshold=3, rounds=1, colluding=1
        ),
        SHARES: SharesRequest(study=study, session=SESSION, offers=dict.fromkeys(members, offer)),
        TEXTS: TextsRequest(study=study, session=SESSION, texts=(("north", "00ff"),)),
        CONFIRM: ConfirmRequest(study=study, session=SESSION, round=0, answered=answered),
        OPEN: OpenRequest(study=study, session=SESSION, round=0, answered=answered),
    }
