"""The hospital's patients as the list shows them, and their pages."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from client.patient.cohort_risks import UNSEEN, CohortRisks, parts_of_run, predict_risks
from client.patient.explanation import explain_patient
from client.patient.run_evidence import gather_evidence
from client.patient.run_model import ExplainedRunModel
from client.patient_page.content import read_evidence
from client.patient_page.page import render_patient
from client.patient_page.pictures import read_radiographs
from client.patient_page.rows import Row
from client.patient_page.sections.verdict import list_doubts
from client.site import Site
from shared_model.pages.wording import Words

KEPT_PAGES = 8  # in memory; each is a few MB


@dataclass(frozen=True)
class References:
    """How many other patients images and series are compared with."""

    images: int
    series: int


class PatientList:
    """All patients of the hospital with their predicted risks, and a page of each on demand.

    Pages are made one after the other, whoever asks: the model works with all cores, and memory is that of one page.

    Args:
        run: the finished run.
        site: the hospital.
        references: of the pages.
        with_outcomes: whether rows tell what happened.
    """

    def __init__(self, run: ExplainedRunModel, site: Site, *, references: References, with_outcomes: bool) -> None:
        self._run, self._site, self._references = run, site, references
        self._lock = threading.Lock()
        self._pages: OrderedDict[int, str] = OrderedDict()
        self._evidence = gather_evidence(run, site)
        everyone = np.arange(len(site.patients))
        risk, parts = predict_risks(run, site, everyone), parts_of_run(run, site)
        self._cohort = CohortRisks(None, everyone, risk)
        if parts is not None:
            unseen = np.flatnonzero(np.array(parts) == UNSEEN)
            self._cohort = CohortRisks(UNSEEN, unseen, risk[unseen])
        self.rows = tuple(
            Row(
                patient_id=patient_id,
                risk=float(risk[i]),
                part=None if parts is None else parts[i],
                lacks=tuple(name for name in run.model.modalities if not site.patients.present[name][i]),
                outcome=bool(site.patients.outcome[i]) if with_outcomes else None,
            )
            for i, patient_id in enumerate(site.patients.patient_ids)
        )

    @property
    def site_name(self) -> str:
        """What the hospital's folder is called."""
        return self._site.name

    @property
    def study(self) -> str:
        """Title of the study."""
        return self._site.schema.study.title

    def doubts(self, words: Words) -> tuple[str, ...]:
        """What speaks against all predictions."""
        return list_doubts(read_evidence(self._evidence), words)

    def page(self, row: int, *, home: str) -> str:
        """The page of one patient, as HTML; the last few are kept.

        Args:
            row: index in `rows`.
            home: address of the list.

        Raises:
            HipfedError: the patient cannot be explained.
        """
        with self._lock:
            if row not in self._pages:
                self._pages[row] = self._render(row, home)
            self._pages.move_to_end(row)
            while len(self._pages) > KEPT_PAGES:
                self._pages.popitem(last=False)
            return self._pages[row]

    def _render(self, row: int, home: str) -> str:
        content = explain_patient(
            self._run,
            self._site,
            self.rows[row].patient_id,
            evidence=self._evidence,
            cohort=self._cohort,
            image_references=self._references.images,
            series_references=self._references.series,
        )
        return render_patient(content, read_radiographs(self._site, row), home=home)
