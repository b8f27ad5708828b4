"""Cells of one column as their file holds them, and what their type can and cannot tell."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from shared_model.plain_text import plain_text

Kind = Literal["text", "flag", "whole", "decimal", "float", "duration", "other"]

FIRST_UNSURE = 2**53
"""Smallest whole number that float64 cannot tell from its neighbour."""

_SAFE_DIGITS = {2: 3, 4: 6}  # bytes of a float: decimals of so many digits survive it (8 bytes need no care)
_MOST_DIGITS = {2: 5, 4: 9}  # and so many tell all of its values apart
_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass(frozen=True, eq=False)
class ColumnCells:
    """Cells of one column.

    Attributes:
        kind: text (all of a CSV), flag (true or false), whole, decimal, float, duration, or other: a type that has no
            meaning in any table of the contract (points in time, lists, structures, bytes).
        type_name: of the column in its file.
        values: as they lie in the file.
    """

    kind: Kind
    type_name: str
    values: pd.Series | pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.values)

    def only(self, keep: Bool[np.ndarray, " row"]) -> ColumnCells:
        """Some of the rows."""
        if isinstance(self.values, pd.Series):
            return replace(self, values=self.values[keep].reset_index(drop=True))
        return replace(self, values=self.values.filter(pa.array(keep)))

    @cached_property
    def missing(self) -> Bool[np.ndarray, " row"]:
        """Where nothing is: an empty cell, null, or NaN."""
        if isinstance(self.values, pd.Series):
            return (self.texts == "").to_numpy(dtype=bool)
        if self.kind == "float":
            return np.isnan(self.floats.astype(np.float64))
        return np.asarray(self.values.is_null().to_numpy(), dtype=bool)

    @cached_property
    def texts(self) -> pd.Series:
        """Each cell as text in its plain form, exact; "" = missing. Floats have the fewest digits that tell them."""
        if isinstance(self.values, pd.Series):
            return pd.Series([plain_text(text) for text in self.values], dtype="str")
        if self.kind == "float":
            numbers, positions = np.unique(self.floats, return_inverse=True)
            words = np.array([_float_text(number) for number in numbers], dtype=object)
            return pd.Series(words[positions] if len(words) else [], dtype="str")
        return pd.Series([_plain_value(value) for value in self.values.to_pylist()], dtype="str")

    @cached_property
    def distinct(self) -> tuple[str, ...]:
        """Every text once."""
        return tuple(self.texts.unique())

    def shown(self, row: int) -> str:
        """One cell for a message, as its file holds it; "" = missing."""
        if isinstance(self.values, pd.Series):
            return str(self.values.iloc[row]) if self.texts.iloc[row] else ""
        if self.kind == "float":
            return _float_text(self.floats[row])
        return _plain_value(self.values[row].as_py())

    @cached_property
    def floats(self) -> np.ndarray:
        """The cells of kind float, in their own precision; NaN = missing."""
        dtype = f"f{self.values.type.bit_width // 8}"
        if self.values.null_count:
            return np.asarray(
                self.values.cast(pa.float64()).to_numpy(), dtype=dtype
            )  # keeps NaN for null, and every value
        return np.asarray(self.values.to_numpy(), dtype=dtype)

    @cached_property
    def numbers(self) -> Float64[np.ndarray, " row"]:
        """The cells of kind flag, whole, decimal or float; NaN = missing.

        A narrow float stands for the shortest decimal that it can come from: 0.1 for a float32's 0.100000001490116.
        """
        if self.kind == "float":
            return _decimal_of(self.floats)
        if self.kind == "decimal":
            return np.array([float(text) if text else np.nan for text in self.texts], dtype=np.float64)
        values = self.values.cast(pa.int8()) if self.kind == "flag" else self.values
        return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)

    @property
    def ulp(self) -> float:
        """Relative distance of neighbouring values of kind float; that of float64 for any other kind."""
        return float(np.finfo(self.floats.dtype).eps) if self.kind == "float" else float(np.finfo(np.float64).eps)

    @property
    def first_unsure(self) -> int:
        """Smallest whole number that the type of kind float cannot tell from its neighbour."""
        return 1 << (int(np.finfo(self.floats.dtype).nmant) + 1)

    def times(self, unit_ns: int) -> Float64[np.ndarray, " row"]:
        """The cells of kind duration in another unit; NaN = missing.

        Args:
            unit_ns: length of that unit, in nanoseconds.
        """
        tick_ns = _NS[self.values.type.unit]
        common = int(np.gcd(tick_ns, unit_ns))
        factor, divisor = tick_ns // common, unit_ns // common
        ticks = self.values.cast(pa.int64()).fill_null(0).to_numpy()
        whole, rest = np.divmod(ticks, divisor)
        values: Float64[np.ndarray, " row"] = whole * float(factor) + rest * float(factor) / divisor
        values[self.missing] = np.nan
        return values


@dataclass(frozen=True)
class Content:
    """A whole table, before it is known which columns are wanted.

    Attributes:
        header: plain name of each column.
        lines: line of each row as an editor shows it; the header's is 1 (for Parquet: data row + 1).
        column: the cells of a column, by position in the header.
        complete: whether every row of the file is here.
    """

    header: list[str]
    lines: Int64[np.ndarray, " row"]
    column: Callable[[int], ColumnCells]
    complete: bool = True


def _float_text(number: np.floating) -> str:
    if np.isnan(number):
        return ""
    return np.format_float_positional(number + 0, unique=True, trim="-")  # + 0 makes 0 of -0


def _plain_value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        text = format(value, "f")
        whole, _, decimals = text.partition(".")
        return text if decimals.strip("0") else whole
    return plain_text(str(value))


def _decimal_of(floats: np.ndarray) -> Float64[np.ndarray, " row"]:
    wide = floats.astype(np.float64)
    if floats.itemsize not in _SAFE_DIGITS:
        return wide
    values, size = wide.copy(), np.abs(wide)
    open_ = (size > 1e-7) & (size < 1e15)  # powers of ten up to 22 are exact, so each quotient is the nearest float64
    exponent = np.floor(np.log10(size, where=open_, out=np.zeros_like(size)))
    for digits in range(_SAFE_DIGITS[floats.itemsize], _MOST_DIGITS[floats.itemsize] + 1):
        places = np.where(open_, digits - 1 - exponent, 0)
        up, down = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)
        shorter = np.round(wide * up / down) * down / up
        hit = open_ & (shorter.astype(floats.dtype) == floats)
        values[hit] = shorter[hit]
        open_ &= ~hit
    return values


def text_cells(texts: list[str], type_name: str = "text") -> ColumnCells:
    """Cells of a CSV."""
    return ColumnCells("text", type_name, pd.Series(texts, dtype="str"))


def arrow_cells(values: pa.ChunkedArray) -> ColumnCells:
    """Cells of a Parquet column."""
    name = _FLOAT_NAMES.get(str(values.type), str(values.type))
    if isinstance(values.type, pa.BaseExtensionType):
        storage = values.cast(values.type.storage_type)
        if values.type.extension_name == "arrow.uuid":
            return text_cells(["" if raw is None else str(uuid.UUID(bytes=raw)) for raw in storage.to_pylist()], name)
        values = storage
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.null_count == len(values):  # whatever the type: nothing in it can be misread
        return text_cells([""] * len(values), name)
    if any(holds(values.type) for holds in _TEXT_TYPES):
        texts = _decoded(values)
        return ColumnCells("other", f"{name} that is not UTF-8", values) if texts is None else text_cells(texts, name)
    for kind, holds in _KINDS.items():
        if holds(values.type):
            return ColumnCells(kind, name, values)
    return ColumnCells("other", name, values)


_FLOAT_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}
_TEXT_TYPES: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary,
)  # fmt: skip
_KINDS: Mapping[Kind, Callable[[pa.DataType], bool]] = {
    "flag": pa.types.is_boolean,
    "whole": pa.types.is_integer,
    "decimal": pa.types.is_decimal,
    "float": pa.types.is_floating,
    "duration": pa.types.is_duration,
}


def _decoded(values: pa.ChunkedArray) -> list[str] | None:
    try:
        return ["" if raw is None else raw.rstrip(b"\0").decode() for raw in values.cast(pa.large_binary()).to_pylist()]
    except UnicodeDecodeError:
        return None
