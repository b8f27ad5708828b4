import pytest

from shared_model.pages.numbers import interval, number, percent, percent_interval, significant


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (percent(0.5061), "50.6%"),
        (percent(0.0004), "0.0%"),
        (percent(-0.0004), "0.0%"),
        (percent(0.746, digits=0), "75%"),
        (percent(None), "not available"),
        (number(0.6872), "0.69"),
        (number(-0.004), "0.00"),
        (number(-0.05), "-0.05"),
        (number(None), "not available"),
        (percent_interval([0.4711, 0.541]), "47.1% to 54.1%"),
        (percent_interval(None), "not available"),
        (percent_interval([None, 0.5]), "not available"),
        (interval((0.5468, 0.8)), "0.55 to 0.80"),
        (interval(None), "not available"),
        (significant(0.68721), "0.6872"),
        (significant(241.0), "241"),
        (significant(123456.0), "123456"),
        (significant(None), "not available"),
    ],
)
def test_number_is_written_as_read_aloud_or_said_to_be_missing(written: str, expected: str) -> None:
    assert written == expected
