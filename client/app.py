"""The courier: Flower's ClientApp. It hands each message to the hospital's worker and returns the answer.

In a deployment the worker is another process, found at the node config's `socket`, and this one imports no torch and
knows nothing of patients. With `data` in the node config, or in a simulation, the worker is opened in this process.
"""

from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.socket.courier_end import ask_worker
from shared_model.errors import HipfedError
from shared_model.protocol.messages import EVALUATE, KINDS, TRAIN, Refusal

app = ClientApp()

# Of the time that the coordinator waits, which is how long the message lives; the rest is for the way there and back.
SHARE_OF_DEADLINE = 0.9


def _hand_over(message: Message, context: Context) -> Message:
    try:
        metadata = message.metadata
        reply = _answer(metadata.message_type, message.content, context, lifetime_s=metadata.ttl)
    except HipfedError as error:
        reply = _refusal(context, error.public_reason)
    except Exception as error:  # noqa: BLE001 - Flower would send its text, which may name paths
        reply = _refusal(context, f"the hospital could not start: {type(error).__name__}")
    return Message(reply, reply_to=message)


def _answer(kind: str, question: RecordDict, context: Context, *, lifetime_s: float) -> RecordDict:
    if "socket" in context.node_config:
        limit_s = SHARE_OF_DEADLINE * lifetime_s
        return ask_worker(Path(str(context.node_config["socket"])), kind, question, limit_s=limit_s)
    from client.socket.direct_call import worker_of  # noqa: PLC0415 - torch, which a courier with a socket does without

    return worker_of(context).answer(kind, question)


def _refusal(context: Context, reason: str) -> RecordDict:
    site = str(context.node_config.get("hospital", f"node {context.node_id}"))
    return Refusal(site=site, reason=reason[:2000]).to_record()


for _kind in KINDS:
    if _kind.startswith("query."):
        app.query(_kind.removeprefix("query."))(_hand_over)
app.train()(_hand_over)
app.evaluate()(_hand_over)

assert (TRAIN, EVALUATE) == ("train", "evaluate")  # noqa: S101 - Flower fixes these two names
