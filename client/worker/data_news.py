"""The worker's line to its supervisor on whether it can use the data: rules and counts only."""

_BROKEN, _REFUSES = "worker: ", ". It refuses all studies until this is mended."
_USABLE = "worker: the data can be used again."


def tell_fault(fault: str) -> str:
    """The line.

    Args:
        fault: why the data cannot be used, without anything of a patient; "" if they can be used again.
    """
    return f"{_BROKEN}{fault}{_REFUSES}" if fault else _USABLE


def hear_fault(line: str, *, before: str) -> str:
    """What a line of the worker's output says is wrong with the data.

    Args:
        line: any.
        before: what was wrong until then; it stays so where the line says nothing of it.
    """
    if line == _USABLE:
        return ""
    is_fault = line.startswith(_BROKEN) and line.endswith(_REFUSES)
    return line.removeprefix(_BROKEN).removesuffix(_REFUSES) if is_fault else before
