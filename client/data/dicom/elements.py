"""Elements of a DICOM data set, read as numbers or words by what DICOM says of them, not by the VR a file gives.

Why: US and SS are the same 16 bits, implicit VR gives none, and writers confuse them. Whether bits mean a sign follows
from other attributes, so `shorts` never decides it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from client.data.problems import ImageError, fault, quote

_BINARY = {"FL": "f", "FD": "d", "US": "H", "SS": "h", "UL": "I", "SL": "i"}
_WORDS = ("US", "SS", "OW", "UN", "")


@dataclass(frozen=True)
class Element:
    """One element as it stands in the file.

    Attributes:
        vr: value representation; "" where the file gives none.
        value: its bytes; of encapsulated pixels none.
        items: data sets of a sequence.
        fragments: encapsulated pixel data without its offset table; None if pixels are not encapsulated.
    """

    vr: str
    value: bytes = b""
    items: tuple[DataSet, ...] = ()
    fragments: tuple[bytes, ...] | None = None


class DataSet:
    """The elements of a file, or of an item of a sequence, that are on the reader's list."""

    def __init__(self, elements: Mapping[str, Element], *, little_endian: bool) -> None:
        self.elements = dict(elements)
        self.little_endian = little_endian

    @property
    def order(self) -> str:
        """Byte order in the notation of struct and numpy."""
        return "<" if self.little_endian else ">"

    def holds(self, keyword: str) -> bool:
        """True if the element is there and not empty."""
        element = self.elements.get(keyword)
        return element is not None and bool(element.value.strip(b" ") or element.items)

    def items(self, keyword: str) -> tuple[DataSet, ...]:
        """Data sets of a sequence; none if it is not there."""
        element = self.elements.get(keyword)
        return () if element is None else element.items

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Values of an element of text; none if it is not there or empty."""
        element = self.elements.get(keyword)
        text = "" if element is None else element.value.decode("latin-1").strip(" \0")
        return tuple(part.strip(" \0") for part in text.split("\\")) if text else ()

    def text(self, keyword: str) -> str:
        """First value of an element of text, in capitals; "" if there is none."""
        texts = self.texts(keyword)
        return texts[0].upper() if texts else ""

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Values of an element of numbers written as text; none if it is not there or empty.

        Raises:
            ImageError: a value is no finite number.
        """
        element = self.elements.get(keyword)
        if element is None:
            return ()
        if element.vr in _BINARY:
            size = struct.calcsize(_BINARY[element.vr])
            count = len(element.value) // size
            numbers = struct.unpack(f"{self.order}{count}{_BINARY[element.vr]}", element.value[: count * size])
        else:
            try:
                numbers = tuple(float(text) for text in self.texts(keyword))
            except ValueError:
                raise invalid(keyword, expected="numbers", got=quote(" ".join(self.texts(keyword)))) from None
        if not all(math.isfinite(number) for number in numbers):
            raise invalid(keyword, expected="finite numbers", got=str(numbers))
        return numbers

    def shorts(self, keyword: str) -> tuple[int, ...]:
        """Values of an element of 16-bit integers, each as the unsigned number of its bits; none if it is not there.

        Raises:
            ImageError: the element does not consist of 16-bit integers.
        """
        element = self.elements.get(keyword)
        if element is None or not element.value:
            return ()
        if element.vr in _WORDS and len(element.value) % 2 == 0:
            return struct.unpack(f"{self.order}{len(element.value) // 2}H", element.value)
        if element.vr in ("UL", "SL", "IS", "DS"):
            return tuple(int(number) % (1 << 16) for number in self.numbers(keyword))
        raise invalid(keyword, expected="16-bit integers", got=f"{len(element.value)} bytes of {element.vr}")

    def short(self, keyword: str) -> int | None:
        """First value of an element of 16-bit integers; None if it is not there.

        Raises:
            ImageError: the element does not consist of 16-bit integers.
        """
        shorts = self.shorts(keyword)
        return shorts[0] if shorts else None


def invalid(keyword: str, *, expected: str, got: str, remedy: str = "Correct the attribute in the file") -> ImageError:
    """What is said of an attribute whose value breaks a rule of DICOM."""
    return ImageError("invalid-attribute", f"{keyword}: {fault(expected=expected, got=got, remedy=remedy)}")


def differs(what: str, *, header: str, pixels: str) -> ImageError:
    """What is said where the header and the pixels, or two attributes, contradict each other."""
    remedy = "Export the image again, or correct the header if you know which of the two is right"
    return ImageError("header-differs", f"{what}: {fault(expected=header, got=pixels, remedy=remedy)}")
