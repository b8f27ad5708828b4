"""The worker: the trusted half of a hospital. It owns the data and answers the protocol's questions, nothing else."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from logging.handlers import RotatingFileHandler
from typing import Any, Literal

from flwr.app import RecordDict

from client.enrolment.approvals import Approvals
from client.outbound import Gate
from client.quality.answer import answer_quality, answer_reference
from client.site import Site
from client.worker.evaluation import answer_evaluate
from client.worker.explain import answer_background, answer_explain, answer_spread
from client.worker.image_components import answer_components
from client.worker.local_training import answer_train
from client.worker.readable_rows import refuse_readable_rows
from client.worker.refits import answer_refit, answer_sizes
from client.worker.run_state import NeedsWeightsError
from client.worker.secure_sums import (
    answer_confirm,
    answer_keys,
    answer_open,
    answer_shares,
    answer_texts,
    mask_of,
    signing_key,
)
from client.worker.statistics import answer_statistics
from shared_model.config import Settings, parse_settings
from shared_model.errors import DataError, HipfedError, ProtocolError, SchemaError
from shared_model.process.files import is_full
from shared_model.protocol import messages
from shared_model.protocol.messages import (
    HANDSHAKE,
    PROTOCOL_VERSION,
    SUM_KINDS,
    HandshakeReply,
    HandshakeRequest,
    Message,
    Refusal,
    Request,
    told_protocol,
)
from shared_model.protocol.questions import QUESTIONS, Question, find_question
from shared_model.protocol.study_hash import study_hash
from shared_model.protocol.used_extensions import used_extensions
from shared_model.version import own_version

AnswerFunction = Callable[[Site, Settings, Any, Gate], Message]

LOG_FILE = "worker.log"
_LOG_BYTES, _LOG_FILES = 10 * 2**20, 5


class Worker:
    """Answers questions about one site. Errors become refusals without any patient's value; details stay in its log.

    Attributes:
        site: the hospital.
        log: the hospital's; what it says does not leave.
        data_fault: why the patients could not be read last, without anything of a patient; "" if they could.
    """

    def __init__(self, site: Site, *, approvals: Approvals | None = None, simulated: bool = False) -> None:
        """Open the site.

        Args:
            site: the hospital.
            approvals: the studies that may ask; None lets every study ask, as in a simulation.
            simulated: who asks is who owns the data: refusals say what failed and where the log is.
        """
        self.site = site
        self.log = _open_log(site)
        self.data_fault = ""
        self._approvals, self._simulated = approvals, simulated

    def read_patients(self) -> None:
        """Read them before the first question, which has a deadline; each question tells again what is wrong."""
        try:
            _ = self.site.patients
        except HipfedError as error:
            self.data_fault = error.public_reason
            self.log.exception("the data cannot be used")

    def read_again(self) -> None:
        """Forget the patients and the schema that are in memory: the next question reads what the folder holds now."""
        self.site = replace(self.site)

    def answer(self, kind: str, question: RecordDict) -> RecordDict:
        """The reply to one message, or a Refusal; never raises for what a message or the data can cause."""
        try:
            answer, request, settings, gate = self._open(kind, question)
            reply = answer(self.site, settings, request, gate).to_record()
        except NeedsWeightsError as error:
            return self._refuse(str(error), code="needs-weights")
        except HipfedError as error:
            self.log.exception("%.40r refused", kind)
            if isinstance(error, (DataError, SchemaError)):
                self.data_fault = error.public_reason
            return self._refuse(error.public_reason)
        except Exception as error:
            self.log.exception("%.40r failed", kind)
            if isinstance(error, OSError) and is_full(error):
                return self._refuse("the hospital's disk is full; it takes part again once there is room")
            text = f": {error}" if self._simulated else ""
            return self._refuse(f"internal error: {type(error).__name__}{text}; see the hospital's worker log")
        if kind == HANDSHAKE:
            self.data_fault = ""
        return reply

    def _refuse(self, reason: str, *, code: Literal["refused", "needs-weights"] = "refused") -> RecordDict:
        where = f" ({self.site.state_dir / LOG_FILE})" if self._simulated and reason.endswith("worker log") else ""
        return Refusal(site=self.site.name, code=code, reason=reason[: 2000 - len(where)] + where).to_record()

    def _open(self, kind: str, record: RecordDict) -> tuple[AnswerFunction, Request, Settings, Gate]:
        """A question that this hospital may answer: by which function, from what, and through which gate.

        Raises:
            HipfedError: it may not.
        """
        if kind not in _ANSWERS:
            raise ProtocolError(f"message: expected a question of protocol {PROTOCOL_VERSION}, got {kind[:40]!r}.")
        question = QUESTIONS[kind]
        _refuse_other_versions(record)  # first: another version's question may have other fields
        request = question.request.from_record(record)
        settings = parse_settings(request.study.settings)
        self._check_study(request, settings)
        self._check_sum(request, settings)
        self._check_question(question, request, settings)
        own = self.site.rule
        rule = own.tighten(
            min_patients=settings.min_patients,
            min_events=settings.min_events,
            min_non_events=settings.min_non_events,
            min_sites=max(settings.min_sites, own.min_sites),
        )
        audit_log = self.site.state_dir / "audit.jsonl"
        gate = Gate.of(request, rule, schema=self.site.schema, settings=settings, audit_log=audit_log)
        gate = replace(gate, mask=mask_of(self.site, request.study))
        return _ANSWERS[kind], request, settings, gate

    def _check_question(self, question: Question, request: Request, settings: Settings) -> None:
        """Of whom it asks, and whether a hospital that has not made the study itself may answer it."""
        asked = getattr(request, "part", None)
        if question.part is not None and asked != question.part:
            raise ProtocolError(f"{question.kind}: expected a question about the {question.part} part, got {asked}.")
        if self._approvals is None:
            return
        if question.second_moments:
            refuse_readable_rows(self.site, settings, kind=question.kind)
        if question.in_simulations and not settings.trust_coordinator:
            raise ProtocolError(
                f"{question.kind}: expected a question of a simulation or of a study with trust-coordinator=true, got "
                "one for refits on resampled patients. Set share-refits=0."
            )

    def _check_sum(self, request: Request, settings: Settings) -> None:
        """A study whose sums are secure has no others, and only in a simulation: who is who, no approval says yet."""
        question = find_question(request)
        is_of_secure_sum = request.study.sum_round is not None or question.kind in SUM_KINDS
        if (question.has_sums or is_of_secure_sum) and is_of_secure_sum != settings.secure_sum:
            raise ProtocolError(f"{question.kind}: expected a question as secure-sum says, got another.")
        if settings.secure_sum and not self._simulated:
            raise ProtocolError(
                "secure-sum: expected a simulation, got a deployment, where the list of hospitals' keys would be the "
                "coordinator's alone. Set secure-sum=false."
            )

    def _check_study(self, request: Request, settings: Settings) -> None:
        if self._approvals is not None:
            schema, protocol = request.study.schema_sha256, request.study.protocol
            self._approvals.require(study_hash(schema_sha256=schema, settings=settings.to_config(), protocol=protocol))
        if request.study.schema_sha256 != self.site.schema.sha256:
            raise ProtocolError(
                f"schema: expected the study with hash {request.study.schema_sha256[:12]}, "
                f"got {self.site.schema.sha256[:12]} at the hospital. Give every hospital the same schema.toml."
            )
        settings.chosen_modalities(self.site.schema)


def _refuse_other_versions(record: RecordDict) -> None:
    """Both sides have the same protocol: it decides what a study asks for, and its hash. hipfed's versions may differ.

    Raises:
        ProtocolError: the coordinator has another; the text names both, and what to install.
    """
    hipfed, protocol = told_protocol(record) or ("", PROTOCOL_VERSION)
    if protocol != PROTOCOL_VERSION:
        raise ProtocolError(
            f"versions: coordinator {hipfed or 'of an unknown version'} protocol {protocol}, this hospital "
            f"{own_version()} protocol {PROTOCOL_VERSION}: install hipfed "
            f"{hipfed or 'of the same protocol on both sides'}, and approve the study again."
        )


def _answer_handshake(site: Site, settings: Settings, request: HandshakeRequest, gate: Gate) -> HandshakeReply:  # noqa: ARG001
    patients, split = site.patients, site.split(settings)
    if len(split.train) < gate.rule.min_patients or not len(split.val) or not len(split.test):
        raise ProtocolError(
            f"patients: expected at least {gate.rule.min_patients} in the training part and 1 in each other, got fewer."
        )
    return HandshakeReply(
        site=site.name,
        version=own_version(),
        modalities=[name for name in site.schema.modalities if bool(patients.present[name].any())],
        extensions=used_extensions(site.schema, settings),
        signing_key=signing_key(site).public_key().public_bytes_raw().hex() if settings.secure_sum else "",
    )


_ANSWERS: Mapping[str, AnswerFunction] = {
    HANDSHAKE: _answer_handshake,
    messages.REFERENCE: answer_reference,
    messages.QUALITY: answer_quality,
    messages.STATISTICS: answer_statistics,
    messages.COMPONENTS: answer_components,
    messages.TRAIN: answer_train,
    messages.EVALUATE: answer_evaluate,
    messages.BACKGROUND: answer_background,
    messages.EXPLAIN: answer_explain,
    messages.SPREAD: answer_spread,
    messages.REFIT: answer_refit,
    messages.SIZES: answer_sizes,
    messages.KEYS: answer_keys,
    messages.SHARES: answer_shares,
    messages.TEXTS: answer_texts,
    messages.CONFIRM: answer_confirm,
    messages.OPEN: answer_open,
}


def _open_log(site: Site) -> logging.Logger:
    """A log file at the hospital; records do not travel on to Flower's log, which the coordinator can read."""
    log = logging.getLogger(f"hipfed.worker.{site.state_dir.name}")
    log.propagate = False
    log.setLevel(logging.INFO)
    if not log.handlers:
        # Of bounded size: who may ask may also ask nonsense, as often as he likes.
        handler = RotatingFileHandler(
            site.state_dir / LOG_FILE, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8"
        )
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
    return log
