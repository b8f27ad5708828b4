"""Everything that came of one question to the hospitals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.protocol.quorum import Attendance


@dataclass(frozen=True)
class Answers:
    """Everything that came of one question.

    Attributes:
        attendance: who answered, and why the others did not.
        sums: over those whose answers count, float64; none where the question asks for no sums.
        own: by node, what a hospital tells of itself alone; empty where it only adds to the sums.
    """

    attendance: Attendance
    sums: Mapping[str, np.ndarray]
    own: Mapping[int, Any]
