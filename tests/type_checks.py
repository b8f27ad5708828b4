"""Arguments and results held against their annotations, types and shapes alike, while the packages are tested."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import beartype

# Checks of each function in each process. A loop over patients calls some a million times: the millionth check would
# find what the first ones did, and all together they took as long as the tests themselves.
MOST_CHECKS = 1000

# int passes as float, as it does for mypy; methods are decorated one by one, and one alone does not know which class
# Self is.
_BEARTYPE = (
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, "
    "hint_overrides=beartype.FrozenDict({beartype.typing.Self: object})))"
)


def check_first_calls(function: Any, *, typechecker: Any, most: int = MOST_CHECKS) -> Any:
    """A function that is checked when it is called, `most` times; a class as jaxtyping has it."""
    checked = jaxtyped(function, typechecker=typechecker)
    if inspect.isclass(function) or not callable(function):
        return checked
    left = most

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            return checked(*arguments, **named)
        return function(*arguments, **named)

    return call


def checked_anew(function: Any) -> Any:
    """A function of the packages, checked whatever was called before."""
    return check_first_calls(function.__wrapped__, typechecker=beartype)


jaxtyped: Callable[..., Any] = jaxtyping.jaxtyped


def install(*packages: str) -> None:
    """Check these packages, which must not be imported yet."""
    jaxtyping.install_import_hook(packages, _BEARTYPE)
    vars(jaxtyping)["jaxtyped"] = lambda **given: functools.partial(check_first_calls, **given)  # the hook takes it
