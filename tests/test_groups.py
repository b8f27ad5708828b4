"""Tests of one module run on one worker of pytest-xdist: what a fixture builds is built once."""

import pytest


def test_tests_of_a_module_are_one_group(request: pytest.FixtureRequest) -> None:
    grouped = getattr(request.config.option, "loadgroup", False)

    assert request.node.nodeid.endswith("@test_groups.py" if grouped else request.node.name)
