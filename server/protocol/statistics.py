"""Step 3 of a study: the common preprocessing, from sums over all hospitals' training patients."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from server.protocol.hospitals import Hospitals
from server.protocol.quorum import require_quorum
from shared_model.errors import StudyError
from shared_model.preprocessing.standardisation import Preprocessing, fit_preprocessing
from shared_model.preprocessing.statistics import StatisticsFrame, ask_until_done, stack_totals
from shared_model.protocol.messages import StatisticsRequest

log = logging.getLogger("hipfed.server")

Totals = Sequence[Mapping[str, np.ndarray]]


def gather_statistics(hospitals: Hospitals) -> Preprocessing:
    """The common preprocessing; questions go out until means, spreads and medians are sharp enough.

    Later questions go to the hospitals that answered the first. One that is lost meanwhile is named in the log: what is
    looked at again then rests on the others.

    Raises:
        StudyError: no quorum, no patients with and without the outcome, or a modality that nobody has.
    """
    schema, settings = hospitals.schema, hospitals.settings
    left = hospitals

    def ask(frame: StatisticsFrame, totals: Totals) -> Mapping[str, np.ndarray]:  # noqa: ARG001 - hospitals derive it as well
        nonlocal left
        answers = left.ask(StatisticsRequest(study=left.study, totals=stack_totals(totals, schema)))
        require_quorum(answers.attendance, min_sites=settings.min_sites, step="statistics")
        for name in sorted(answers.attendance.failed):
            log.warning("statistics, question %d: without %s", len(totals) + 1, name)
        left = left.only(answers.attendance.answered)
        return answers.sums

    frame, sums = ask_until_done(ask, schema, min_patients=settings.min_patients)
    nowhere = [name for name in settings.chosen_modalities(schema) if not sums[f"{name}/present"]]
    if nowhere:
        kept = ",".join(name for name in settings.chosen_modalities(schema) if name not in nowhere)
        raise StudyError(
            f"training data of all hospitals: expected patients with {', '.join(nowhere)}, got none. "
            f"Leave out what nobody has: --set modalities={kept}"
        )
    return fit_preprocessing(frame, sums, schema)
