"""Step 3 of a study: the common preprocessing, from sums over all hospitals' training patients."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from server.protocol.link import Link
from server.protocol.quorum import ask_sites, require_quorum
from server.protocol.reduce import PlainSum
from server.protocol.roster import Roster
from shared_model.config import Settings
from shared_model.errors import StudyError
from shared_model.preprocessing.standardisation import Preprocessing, fit_preprocessing
from shared_model.preprocessing.statistics import StatisticsFrame, ask_until_done, stack_totals, statistics_quantities
from shared_model.protocol.messages import STATISTICS, StatisticsRequest, StudyReference, SumsReply
from shared_model.schema import Schema

log = logging.getLogger("hipfed.server")

Totals = Sequence[Mapping[str, np.ndarray]]


def gather_statistics(
    link: Link, study: StudyReference, *, schema: Schema, settings: Settings, roster: Roster
) -> Preprocessing:
    """The common preprocessing; questions go out until means, spreads and medians are sharp enough.

    Later questions go to the hospitals that answered the first. One that is lost meanwhile is named in the log: what is
    looked at again then rests on the others.

    Raises:
        StudyError: no quorum, no patients with and without the outcome, or a modality that nobody has.
    """
    names = dict(roster.names)

    def ask(frame: StatisticsFrame, totals: Totals) -> Mapping[str, np.ndarray]:  # noqa: ARG001 - hospitals derive it as well
        total, answered = _ask(link, study, totals, schema=schema, settings=settings, names=names)
        for node in [node for node, name in names.items() if name not in answered]:
            log.warning("statistics, question %d: without %s", len(totals) + 1, names.pop(node))
        return total

    frame, sums = ask_until_done(ask, schema, min_patients=settings.min_patients)
    nowhere = [name for name in settings.chosen_modalities(schema) if not sums[f"{name}/present"]]
    if nowhere:
        kept = ",".join(name for name in settings.chosen_modalities(schema) if name not in nowhere)
        raise StudyError(
            f"training data of all hospitals: expected patients with {', '.join(nowhere)}, got none. "
            f"Leave out what nobody has: --set modalities={kept}"
        )
    return fit_preprocessing(frame, sums, schema)


def _ask(
    link: Link, study: StudyReference, totals: Totals, *, schema: Schema, settings: Settings, names: Mapping[int, str]
) -> tuple[Mapping[str, np.ndarray], list[str]]:
    """One question to the named hospitals: the total of their answers, and who answered."""
    total = PlainSum(statistics_quantities(schema, first=not totals))
    question = StatisticsRequest(study=study, totals=stack_totals(totals, schema)).to_record()
    attendance = ask_sites(
        link,
        STATISTICS,
        dict.fromkeys(names, question),
        names=names,
        deadline_s=settings.deadline_s,
        accept=lambda node, record: total.add(SumsReply.from_record(record).arrays, where=names[node]),
    )
    require_quorum(attendance, min_sites=settings.min_sites, step="statistics")
    return total.total(), attendance.answered
