import pytest

from client.data.causes import number_cause, word_cause


@pytest.mark.parametrize(
    ("rule", "texts"),
    [
        ("decimal-comma", ["12,5", "-0,25", "1.234,5", ",5", "1,5e3"]),
        ("comma-in-number", ["1,234", "-12,345"]),
        ("thousands-separator", ["1,234,567", "1,234.5", "1 234", "1'234.5", "1\u2019234", "1.234.567"]),
        ("unit-in-cell", ["80 mmHg", "80mmHg", "37.2 \u00b0C", "12,5 kg", "5 \u00b5g", "1.2x10^3"]),
        ("percent-sign", ["97%", "97 %", "97,5%"]),
        ("limit-in-number", ["<5", "< 0.5", ">=100", "\u22643", "~7"]),
        (
            "missing-marker",
            ["NA", "N/A", "n/a", "NULL", "null", "nan", "None", "-", ".", "?", "unknown", "\\N", "<NA>"],
        ),
        ("excel-error", ["#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#####"]),
        ("date-in-number", ["2024-03-05", "05.03.2024", "3/5/24", "2024-03-05 10:00", "12-May", "5. Mai", "May-24"]),
        ("clock-time", ["12:30", "01:30:00", "0 days 00:01:00", "PT60S", "9:15 am"]),
        ("two-values", ["120/80", "5-10", "3 \u00b1 1", "1;2"]),
        ("formula", ["=A1+B1"]),
        ("text-mark", ['="5"', "'5", "\u20195"]),
        ("not-a-minus", ["\u22125", "\u20135.5"]),
        ("other-digits", ["\u0661\u0662"]),
        ("not-a-number", ["yes", "1e999", "inf", "-Infinity", "12.5.3"]),
    ],
)
def test_number_cause_names_why_a_cell_is_no_number(rule: str, texts: list[str]) -> None:
    assert {text: number_cause(text).rule for text in texts} == dict.fromkeys(texts, rule)


@pytest.mark.parametrize("text", ["morphine", "12", "A-1", "0.5", "m"])
def test_word_cause_is_none_for_what_may_be_a_value(text: str) -> None:
    assert word_cause(text) is None
