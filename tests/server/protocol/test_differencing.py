import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.differencing import Band, reveal_few

INF = math.inf


def bands(values: list[float], edges: list[float], *, fewest: int = 0) -> list[Band]:
    """All bands of some values, or those that are not too small."""
    found = [
        Band(low, high, sum(low <= value < high for value in values)) for low, high in pairwise([-INF, *edges, INF])
    ]
    return [band for band in found if band.n >= fewest]


def test_one_patient_between_two_edges_is_revealed() -> None:
    # from 80 on there are 50, from 81.6 on 49
    assert reveal_few([Band(80, INF, 50)], [Band(81.6, 90, 30), Band(90, INF, 19)], fewest=10)


def test_hidden_bands_beside_the_slice_hide_it() -> None:
    # from 80 on there are 50, of which 30 lie between 81.6 and 90: the slice and those above 90 are 20 together
    assert not reveal_few([Band(80, INF, 50)], [Band(81.6, 90, 30)], fewest=10)


def test_slice_of_two_neighbours_together_is_revealed() -> None:
    # neither band of the first lies around a band of the second; both together do, and leave 3
    assert reveal_few([Band(0, 10, 40), Band(10, 20, 40)], [Band(1, 19, 77)], fewest=10)


@pytest.mark.parametrize("edge", [79.0, 80.0])
def test_equal_edges_or_a_large_slice_reveal_nobody(edge: float) -> None:
    ages = [60.0] * 30 + [79.5] * (0 if edge == 80 else 12) + [85.0] * 30
    assert not reveal_few(bands(ages, [80]), bands(ages, [edge]), fewest=10)


@given(
    st.lists(st.integers(0, 20), min_size=20, max_size=150),
    st.lists(st.integers(1, 19), max_size=4, unique=True),
    st.lists(st.integers(1, 19), max_size=4, unique=True),
)
def test_no_slice_between_an_edge_of_each_is_small_where_nothing_is_revealed(
    values: list[int], first: list[int], second: list[int]
) -> None:
    edges = [sorted(map(float, each)) for each in (first, second)]
    cuts = [bands([float(value) for value in values], each) for each in edges]
    if not reveal_few(cuts[0], cuts[1], fewest=10):
        for low, high in pairwise(sorted({*edges[0], *edges[1]})):
            is_slice = not any({low, high} <= set(each) for each in edges)
            assert not (is_slice and 0 < np.sum((np.array(values) >= low) & (np.array(values) < high)) < 10)
