"""Parse a DICOM file, of it only the elements of a list: everything else is passed over in the file, never read.

Why not pydicom's reader: it parses the whole of every sequence of undefined length, and of every sequence that it is
asked for, so that names and identifiers inside them would enter memory.

Source: DICOM PS3.5 chapter 7 (data set), annex A (transfer syntaxes); PS3.10 chapter 7 (file meta information).
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from client.data.dicom.elements import DataSet, Element
from client.data.problems import ImageError, fault

_PALETTE = tuple(
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
KEYWORDS = (
    "TransferSyntaxUID",
    "MediaStorageSOPClassUID",
    "SOPClassUID",
    "Modality",
    "PresentationIntentType",
    "NominalScannedPixelSpacing",
    "ImagerPixelSpacing",
    "PatientOrientation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "PixelAspectRatio",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "BurnedInAnnotation",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "LUTDescriptor",
    "LUTData",
    "PresentationLUTShape",
    *_PALETTE,
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "FrameVOILUTSequence",
    "PixelValueTransformationSequence",
    "PixelMeasuresSequence",
    "PatientOrientationInFrameSequence",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
)
_BY_TAG = {int(tag_for_keyword(keyword) or 0): keyword for keyword in KEYWORDS}
_SEQUENCES = frozenset(keyword for keyword in KEYWORDS if dictionary_VR(keyword) == "SQ")
_PIXELS = frozenset({"FloatPixelData", "DoubleFloatPixelData", "PixelData"})

_VRS = frozenset(str(vr) for vr in VR)
_LONG = frozenset(str(vr) for vr in EXPLICIT_VR_LENGTH_32)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_DEEPEST = 32  # sequences within sequences; a real file has five
_LARGEST_INFLATED = 1 << 30
_FIRST_LONGEST = 1024  # bytes of the first element of a data set: a character set, an image type, a UID


@dataclass(frozen=True)
class DicomFile:
    """A file's listed elements.

    Attributes:
        data_set: the elements.
        syntax: UID of the transfer syntax; "" where the file does not say.
    """

    data_set: DataSet
    syntax: str


@dataclass(frozen=True)
class _Head:
    tag: int
    vr: str
    length: int


def looks_like_dicom(start: bytes) -> bool:
    """True if a file's first bytes are those of DICOM: DICM after 128 bytes or, without this preamble, group 2 or 8."""
    if start[128:132] == b"DICM":
        return True
    if len(start) < 8:
        return False
    explicit = start[4:6].decode("latin-1") in _VRS
    if explicit and start[:2] == b"\0\x08":
        return True
    group, _, length = struct.unpack("<HHI", start[:8])
    return (group in (2, 8) and explicit) or (group == 8 and length <= _FIRST_LONGEST and length % 2 == 0)


def parse_dicom(path: Path) -> DicomFile:
    """The listed elements of a file, with or without preamble.

    Raises:
        ImageError: the file ends too early, or is no DICOM data set.
    """
    with path.open("rb") as file:
        start = file.read(132)
        file.seek(132 if start[128:] == b"DICM" else 0)
        meta = _read_meta(file)
        syntax = (meta.texts("TransferSyntaxUID") or ("",))[0]
        body: io.BufferedIOBase = file
        if syntax == DeflatedExplicitVRLittleEndian:
            body = _inflate(file.read())
        parser = _parser_of(body, syntax)
        found = parser.read_data_set(end=None)
        if "SOPClassUID" not in found.elements and "MediaStorageSOPClassUID" in meta.elements:
            found.elements["SOPClassUID"] = meta.elements["MediaStorageSOPClassUID"]
    if not found.elements:
        raise _damaged("no element that an image has")
    return DicomFile(data_set=found, syntax=syntax)


def _read_meta(file: io.BufferedIOBase) -> DataSet:
    """The listed elements of group 2; the file is left at the first element behind it."""
    elements: dict[str, Element] = {}
    parser = _Parser(file, little_endian=True, implicit=False)
    while True:
        place = file.tell()
        start = file.read(2)
        file.seek(place)
        if start != b"\x02\x00":
            return DataSet(elements, little_endian=True)
        parser.read_element(elements, depth=0)


def _inflate(deflated: bytes) -> io.BytesIO:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = stream.decompress(deflated, _LARGEST_INFLATED)
    except zlib.error as error:
        raise _damaged(f"deflated content with a fault ({error})") from error
    if not stream.eof:
        raise _damaged("deflated content that ends too early or is too large")
    return io.BytesIO(content)


def _parser_of(file: io.BufferedIOBase, syntax: str) -> _Parser:
    """A parser by what stands at the place: writers give a wrong transfer syntax, or none."""
    place = file.tell()
    start = file.read(6)
    file.seek(place)
    explicit = len(start) == 6 and start[4:6].isalpha() and start[4:6].isupper()
    big = syntax == ExplicitVRBigEndian or (not syntax and explicit and start[:1] == b"\0")
    return _Parser(file, little_endian=not big, implicit=not explicit)


def _damaged(got: str) -> ImageError:
    detail = fault(expected="a whole DICOM file", got=got, remedy="Copy or export the file again")
    return ImageError("unreadable-image", detail)


class _Parser:
    def __init__(self, file: io.BufferedIOBase, *, little_endian: bool, implicit: bool) -> None:
        self._file = file
        self._little_endian = little_endian
        self._implicit = implicit
        self._order = "<" if little_endian else ">"
        place = file.tell()
        self._size = file.seek(0, os.SEEK_END)
        file.seek(place)

    def read_data_set(self, *, end: int | None, depth: int = 0, wanted: bool = True) -> DataSet:
        """Elements up to a place, to the end of the item, or to the pixels; none is kept unless wanted."""
        if depth > _DEEPEST:
            raise _damaged(f"sequences within sequences, more than {_DEEPEST} deep")
        elements: dict[str, Element] = {}
        while (end is None or self._file.tell() < end) and self._file.tell() < self._size:
            if self.read_element(elements, depth=depth, wanted=wanted):
                break
        return DataSet(elements, little_endian=self._little_endian)

    def read_element(self, elements: dict[str, Element], *, depth: int, wanted: bool = True) -> bool:
        """Read or pass over one element; true if it is the last: the end of the item, or the pixels."""
        head = self.read_head()
        if head.tag == _ITEM_END:
            return True
        keyword = _BY_TAG.get(head.tag, "") if wanted else ""
        if keyword in _PIXELS:
            if depth > 0:  # a small copy of another image
                keyword = ""
            else:
                elements[keyword] = self._read_pixels(head)
                return True
        if keyword in _SEQUENCES or head.length == _UNDEFINED:
            items = self._read_items(head, depth=depth, wanted=bool(keyword))
            if keyword:
                elements[keyword] = Element(vr="SQ", items=items)
        elif keyword:
            elements[keyword] = Element(vr=head.vr, value=self._read(head.length))
        else:
            self._pass(head.length)
        return False

    def read_head(self) -> _Head:
        raw = self._read(8)
        group, number, length = struct.unpack(f"{self._order}HHI", raw)
        tag = group << 16 | number
        vr = raw[4:6].decode("latin-1")
        if group == 0xFFFE or self._implicit or not (vr.isalpha() and vr.isupper()):
            return _Head(tag, "", length)
        if vr in _LONG:
            return _Head(tag, vr, struct.unpack(f"{self._order}I", self._read(4))[0])
        return _Head(tag, vr, struct.unpack(f"{self._order}H", raw[6:8])[0])

    def _read_items(self, head: _Head, *, depth: int, wanted: bool) -> tuple[DataSet, ...]:
        """Items of a sequence; of undefined length also fragments, which are passed over."""
        inner = self if head.vr != "UN" else _Parser(self._file, little_endian=True, implicit=True)  # PS3.5 6.2.2
        end = None if head.length == _UNDEFINED else self._file.tell() + head.length
        if end is not None and end > self._size:
            raise _damaged("its end within a sequence")
        items = []
        while end is None or self._file.tell() < end:
            item = inner.read_head()
            if item.tag == _SEQUENCE_END:
                break
            if item.tag != _ITEM:
                raise _damaged("a sequence without items")
            if item.length == _UNDEFINED:
                items.append(inner.read_data_set(end=None, depth=depth + 1, wanted=wanted))
            elif wanted:
                stop = self._file.tell() + item.length
                items.append(inner.read_data_set(end=stop, depth=depth + 1))
                self._file.seek(stop)
            else:
                self._pass(item.length)
        return tuple(items)

    def _read_pixels(self, head: _Head) -> Element:
        if head.length != _UNDEFINED:
            return Element(vr=head.vr, value=self._read(head.length))
        fragments: list[bytes] = []
        while self._file.tell() < self._size:
            item = self.read_head()
            if item.tag == _SEQUENCE_END:
                break
            if item.tag != _ITEM:
                raise _damaged("encapsulated pixels that are no sequence of fragments")
            fragments.append(self._read(item.length))
        return Element(vr=head.vr, fragments=tuple(fragments[1:]))  # the first is the table of offsets

    def _read(self, length: int) -> bytes:
        self._check(length)
        return self._file.read(length)

    def _pass(self, length: int) -> None:
        self._check(length)
        self._file.seek(length, os.SEEK_CUR)

    def _check(self, length: int) -> None:
        if length > self._size - self._file.tell():
            raise _damaged("its end within an element")
