"""Look-up tables of DICOM: modality LUT, VOI LUT, palette.

Source: DICOM PS3.3 C.11.1.1 and C.11.2.1.1 (LUT descriptor), C.7.6.3.1.5 and 6 (palette).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Integer

from client.data.dicom.elements import DataSet, invalid

Range = tuple[float, float]


@dataclass(frozen=True)
class LookUpTable:
    """A table of gray values or of one colour.

    Attributes:
        first: the value that the first entry stands for.
        bits: of an entry.
        entries: never negative.
    """

    first: int
    bits: int
    entries: Float64[np.ndarray, " entry"]

    @property
    def white(self) -> int:
        """The largest entry that these bits can hold; where an entry is larger, the bits that it needs are meant."""
        return (1 << max(self.bits, int(self.entries.max()).bit_length())) - 1

    def apply(self, values: Float64[np.ndarray, "height width"]) -> Float64[np.ndarray, "height width"]:
        """Each value's entry; the first or last for a value before or behind the table."""
        position = np.clip(values - self.first, 0, len(self.entries) - 1).astype(np.int64)
        return np.asarray(self.entries[position])


def read_table(data_set: DataSet, *, descriptor: str, data: str, inputs: Range) -> LookUpTable:
    """A table of a data set.

    The three numbers of the descriptor are 16 bits without a sign, whatever VR the file gives, but for the second where
    an input can be negative. No entries means 65,536.

    Args:
        data_set: holds descriptor and data.
        descriptor: keyword of the descriptor.
        data: keyword of the entries.
        inputs: smallest and largest value that can come in.

    Raises:
        ImageError: a descriptor that breaks the rule, or too few entries.
    """
    numbers = data_set.shorts(descriptor)
    if len(numbers) != 3:
        raise invalid(descriptor, expected="three numbers", got=f"{len(numbers)}")
    count = numbers[0] or 1 << 16
    bits = numbers[2]
    if not 8 <= bits <= 16:
        raise invalid(descriptor, expected="8 to 16 bits an entry", got=f"{bits}")
    element = data_set.elements.get(data)
    raw = b"" if element is None else element.value
    if len(raw) < count:
        raise invalid(data, expected=f"{count} entries", got=f"{len(raw)} bytes")
    entries: Integer[np.ndarray, " entry"]
    if len(raw) >= 2 * count:
        entries = np.frombuffer(raw, dtype=f"{data_set.order}u2", count=count)
    elif bits > 8:
        raise invalid(data, expected=f"{count} entries of {bits} bits", got=f"{len(raw)} bytes")
    else:
        if not data_set.little_endian and len(raw) % 2 == 0:  # bytes in words
            raw = np.frombuffer(raw, dtype="u2").byteswap().tobytes()
        entries = np.frombuffer(raw, dtype="u1", count=count)
    first = _with_likely_sign(numbers[1], count, inputs)
    return LookUpTable(first=first, bits=bits, entries=entries.astype(np.float64))


def _with_likely_sign(pattern: int, count: int, inputs: Range) -> int:
    """The first value of 16 bits: negative if an input may be, unless the table then lies outside all inputs."""
    negative = pattern - (1 << 16)
    if pattern < 1 << 15 or inputs[0] >= 0:
        return pattern
    misses = negative + count - 1 < inputs[0]
    reaches = pattern <= inputs[1]
    return pattern if misses and reaches else negative
