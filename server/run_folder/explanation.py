"""Record of explanations.json."""

from collections.abc import Mapping

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from server.run_folder.records import Ends, Number, Released

SMALLEST_SHARE = 0.0005  # below, a share would be written as 0.0%
FEWEST_PREDICTING = 5  # hospitals: of three or four, an interval for the next one says nothing
PRESENCE = "presence"  # the entry of having or lacking a modality at all, over all patients

_record = checked_dataclass(frozen=True, config=ConfigDict(extra="ignore"))


@_record
class ModalityEntry:
    """A modality over all patients of a group; the spread between hospitals only over all patients."""

    share: Number = None
    share_ci: Ends = None
    share_range: Ends = None
    evidence: bool | None = None
    mean_local_share: Number = None
    mean_local_share_ci: Ends = None
    share_present: Number = None
    mean_abs: Number = None
    mean_abs_ci: Ends = None
    alone: Number = None
    left_out: Number = None
    se_background: Number = None
    n_present: int | None = None
    tau: Number = None
    i2: Number = None
    hospitals: int | None = None
    site_mean: Number = None
    site_mean_ci: Ends = None
    prediction_interval: Ends = None

    @property
    def is_unused(self) -> bool:
        """True if the model does not use the modality: its share would be written as 0.0%."""
        return self.share is not None and self.share < SMALLEST_SHARE

    @property
    def lacks_evidence(self) -> bool:
        """True if the training patients gave no evidence that it helps: refits tell, or that it is not used."""
        return self.is_unused if self.evidence is None else not self.evidence

    @property
    def next_hospital(self) -> Ends:
        """Where the share at a further hospital is expected; None where too few hospitals tell, or nothing is used."""
        enough = self.hospitals is not None and self.hospitals >= FEWEST_PREDICTING
        return self.prediction_interval if enough and not self.is_unused else None


@_record
class ShareInterval:
    """How `share_range` was made; `reason` says why there is none."""

    method: str = ""
    replicates: int = 0
    reason: str | None = None


@_record
class Interaction:
    """A pair of modalities."""

    modalities: tuple[str, str]
    mean: Number = None
    mean_abs: Number = None


@_record
class ValueGroup:
    """Patients whose value is a level, or lies in a range; suppressed ones have no numbers."""

    level: str | None = None
    range: Ends = None
    suppressed: bool = False
    n: int | None = None
    mean_phi: Number = None
    sd_phi: Number = None


@_record
class Histogram:
    """Counts by value group and phi, without groups one of whose cells holds few."""

    groups: tuple[int, ...]
    phi_edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]


@_record
class FeatureEntry:
    """A feature inside a modality."""

    name: str
    unit: str = ""
    suppressed: bool = False
    n: int | None = None
    mean_abs: Number = None
    mean_abs_ci: Ends = None
    mean_phi: Number = None
    hidden_values: bool = False
    se_sampling: Number = None
    correlation: Number = None
    groups: tuple[ValueGroup, ...] = ()
    histogram: Released[Histogram] = None


@_record
class GroupEntry:
    """A stratum, or a hospital's row: patients, deaths and the shares of the modalities."""

    n: int
    events: int
    modalities: Mapping[str, ModalityEntry]


@_record
class Distance:
    """How far the shares moved between two explained rounds."""

    l1: Number = None
    rank_correlation: Number = None
    top_overlap: Number = None


@_record
class DriftStep:
    """From one explained round to the next."""

    to: int
    from_: int = Field(alias="from")
    groups: Mapping[str, Distance] = Field(default_factory=dict)


Features = Released[tuple[FeatureEntry, ...]]


@_record
class Explanation:
    """explanations.json; where it may not be told at all, only ids and reasons are left.

    Attributes:
        suppressed: nothing may be told.
        features: by modality; None where the modality's may not be told.
    """

    model_hash: str = ""
    background_id: str = ""
    suppressed: bool = False
    base_logit: Number = None
    n: int | None = None
    events: int | None = None
    feature_patients: int | None = None
    part: str = "test"
    share_interval: ShareInterval | None = None
    modalities: Mapping[str, ModalityEntry] = Field(default_factory=dict)
    interactions: tuple[Interaction, ...] = ()
    features: Mapping[str, Features] = Field(default_factory=dict)
    strata: Mapping[str, Mapping[str, Released[GroupEntry]]] = Field(default_factory=dict)
    sites: Mapping[str, Released[GroupEntry]] = Field(default_factory=dict)
    drift: tuple[DriftStep, ...] = ()
    failed: Mapping[str, str] = Field(default_factory=dict)
    spread_failed: Mapping[str, str] = Field(default_factory=dict)

    @property
    def is_single(self) -> bool:
        """True if there is one modality, so that its share is 1 by construction, everywhere."""
        return len(self.modalities) == 1

    @property
    def uses_nothing(self) -> bool:
        """True if no modality moves any prediction, so that no share is defined."""
        return bool(self.modalities) and all(
            entry.share is None and entry.mean_abs == 0 for entry in self.modalities.values()
        )

    def by_share(self) -> list[tuple[str, ModalityEntry]]:
        """Modalities, the largest share first; one without a share comes last."""
        return sorted(self.modalities.items(), key=lambda item: -(-1.0 if item[1].share is None else item[1].share))
