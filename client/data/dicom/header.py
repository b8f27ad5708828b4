"""The attributes that describe the pixels: size, samples, bits, sign.

Source: DICOM PS3.3 C.7.6.3 (image pixel), PS3.5 8.1.1 (bits allocated, bits stored, high bit).
"""

from dataclasses import dataclass

from client.data.dicom.elements import DataSet, differs, invalid
from client.data.dicom.functional_groups import multi_frame
from client.data.gray_image import refuse_large
from client.data.problems import ImageError, fault, quote

_SAMPLES = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_RCT": 3,
    "YBR_ICT": 3,
}
_NEEDED = ("Rows", "Columns", "PhotometricInterpretation", "BitsAllocated")


@dataclass(frozen=True)
class PixelHeader:
    """The image pixel module.

    Attributes:
        rows: of the image.
        columns: of the image.
        samples: a pixel, 1 or 3.
        photometric: meaning of the samples.
        planar: whether the samples of one kind stand together; None if not said.
        bits_allocated: of a sample in a native image, 8, 16 or 32.
        bits_stored: of these, those that hold the value.
        high_bit: place of the highest of them.
        signed: whether the value is a two's complement.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: bool | None
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def is_gray(self) -> bool:
        """True if the values are gray values of a modality."""
        return self.photometric in ("MONOCHROME1", "MONOCHROME2")

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that the stored bits can hold."""
        half = 1 << (self.bits_stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    @property
    def shift(self) -> int:
        """Bits below the value."""
        return self.high_bit + 1 - self.bits_stored


def refuse_unusable(data_set: DataSet) -> None:
    """Stop at what is no single, clean image of integers.

    Raises:
        ImageError: no pixels, pixels that are no integers, burned-in annotation, several frames.
    """
    lacking = [tag for tag in (*_NEEDED, "PixelData") if tag not in data_set.elements]
    if "FloatPixelData" in data_set.elements or "DoubleFloatPixelData" in data_set.elements:
        raise invalid("PixelData", expected="integer pixels", got="floating point", remedy="Export it as integers")
    if lacking:
        detail = fault(expected="a whole image", got=f"no {', '.join(lacking)}", remedy="Export the image again")
        raise ImageError("unreadable-image", detail)
    if data_set.text("BurnedInAnnotation") == "YES":
        detail = fault(
            expected="BurnedInAnnotation = NO",
            got="YES, so the pixels may show a name",
            remedy="Clean the pixels (DICOM PS3.15 Annex E), then set it to NO",
        )
        raise ImageError("burned-in-annotation", detail)
    frames = data_set.numbers("NumberOfFrames")
    if frames and frames[0] > 1:
        raise multi_frame(f"{frames[0]:g}")


def read_header(data_set: DataSet) -> PixelHeader:
    """The image pixel module, checked against itself.

    Raises:
        ImageError: too large, or attributes that break a rule or contradict each other.
    """
    photometric = data_set.text("PhotometricInterpretation")
    if photometric not in _SAMPLES:
        expected = ", ".join(_SAMPLES)
        raise invalid("PhotometricInterpretation", expected=f"one of {expected}", got=quote(photometric))
    rows, columns = _count(data_set, "Rows"), _count(data_set, "Columns")
    refuse_large(columns, rows)
    samples = _count(data_set, "SamplesPerPixel", missing=_SAMPLES[photometric])
    if samples != _SAMPLES[photometric]:
        raise differs("SamplesPerPixel", header=f"{_SAMPLES[photometric]} for {photometric}", pixels=f"{samples}")
    allocated = _count(data_set, "BitsAllocated")
    if allocated not in (8, 16, 32):
        raise invalid("BitsAllocated", expected="8, 16 or 32", got=f"{allocated}", remedy="Export it with 16 bits")
    stored = _count(data_set, "BitsStored", missing=allocated)
    high = _short(data_set, "HighBit", missing=stored - 1)
    if not 1 <= stored <= high + 1 <= allocated:
        got = f"BitsAllocated {allocated}, BitsStored {stored}, HighBit {high}"
        raise differs("bits of a pixel", header="BitsStored - 1 <= HighBit < BitsAllocated", pixels=got)
    sign = _short(data_set, "PixelRepresentation", missing=0)
    planar = data_set.short("PlanarConfiguration")
    for keyword, value in (("PixelRepresentation", sign), ("PlanarConfiguration", planar or 0)):
        if value not in (0, 1):
            raise invalid(keyword, expected="0 or 1", got=f"{value}")
    if sign and samples == 3:
        raise differs("PixelRepresentation", header=f"0 (unsigned) for {photometric}", pixels="1 (signed)")
    return PixelHeader(
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=photometric,
        planar=None if planar is None else bool(planar),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=bool(sign),
    )


def _short(data_set: DataSet, keyword: str, *, missing: int | None = None) -> int:
    value = data_set.short(keyword)
    if value is not None:
        return value
    if missing is None:
        raise invalid(keyword, expected="a number", got="none")
    return missing


def _count(data_set: DataSet, keyword: str, *, missing: int | None = None) -> int:
    value = _short(data_set, keyword, missing=missing)
    if value < 1:
        raise invalid(keyword, expected="at least 1", got=f"{value}")
    return value
