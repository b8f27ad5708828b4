"""Phases of Newton steps, and the widest head for them; see `shared_model.training.newton`. Known without torch."""

from shared_model.config import Phase, Settings
from shared_model.errors import SettingsError

MAX_WIDTH = 1024  # of the concatenated embeddings: 4 MB a hospital and round


def uses_newton(settings: Settings, phase: Phase) -> bool:
    """True if a round of this phase is a Newton step: early fusion and a head that all hospitals share.

    It moves the head's linear part. A perceptron beside it starts at zero and stays there until phase `joint`.
    """
    is_linear = settings.fusion == "early" and not settings.local_head
    return settings.strategy == "newton" and phase == "fusion" and is_linear


def refuse_wide_head(width: int) -> None:
    """Refuse concatenated embeddings whose Hessian is too large to travel.

    Raises:
        SettingsError: they are of more than `MAX_WIDTH` columns.
    """
    if width > MAX_WIDTH:
        raise SettingsError(
            f"strategy=newton: expected concatenated embeddings of at most {MAX_WIDTH} columns, whose Hessian still "
            f"travels, got {width}. Lower image-embedding or series-embedding, or choose fedavg."
        )
