from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, Sequence, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from client.data.dicom import decode_dicom
from client.data.dicom.elements import DataSet
from client.data.dicom.parsing import KEYWORDS, looks_like_dicom, parse_dicom
from client.data.images import decode_image
from client.data.problems import ImageError

WriteDicom = Callable[..., Path]

RAMP = np.array([[0, 100], [200, 400]], dtype=np.uint16)
STRETCHED = [[0, 16384], [32768, 65535]]
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def _group(**macros: Dataset) -> Dataset:
    group = Dataset()
    for keyword, item in macros.items():
        setattr(group, keyword, Sequence([item]))
    return group


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _all_bytes(data_set: DataSet) -> Iterator[bytes]:
    for element in data_set.elements.values():
        yield element.value
        for item in element.items:
            yield from _all_bytes(item)


def _all_keywords(data_set: DataSet) -> Iterator[str]:
    for keyword, element in data_set.elements.items():
        yield keyword
        for item in element.items:
            yield from _all_keywords(item)


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("undefined_length", [False, True])
def test_parse_dicom_never_holds_a_name_or_identifier(
    write_dicom: WriteDicom, *, syntax: str, undefined_length: bool
) -> None:
    identity = _item(PatientName="Doe^Jane", PatientID="secret", PatientBirthDate="19400101")
    window = _item(WindowCenter=200, WindowWidth=400, PatientName="Doe^Jane", ReferencedPatientSequence=[identity])
    group = _group(FrameVOILUTSequence=window, ReferencedImageSequence=identity)
    group.PatientName = "Doe^Jane"
    attributes = {
        "SharedFunctionalGroupsSequence": Sequence([group]),
        "OtherPatientIDsSequence": Sequence([identity]),
        "RequestAttributesSequence": Sequence([_group(ReferencedPatientSequence=identity)]),
    }
    path = write_dicom(RAMP, native=syntax, PatientBirthDate="19400101", AccessionNumber="A7", **attributes)
    if undefined_length:
        dataset = dcmread(path)
        for element in dataset.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
        dataset.save_as(path)

    found = parse_dicom(path).data_set

    assert found.items("SharedFunctionalGroupsSequence")[0].items("FrameVOILUTSequence")[0].numbers("WindowWidth")
    assert set(_all_keywords(found)) <= set(KEYWORDS)
    held = b"".join(_all_bytes(found))
    assert not any(secret in held for secret in (b"Jane", b"secret", b"19400101", b"A7"))
    identities = {"Patient", "UID", "Date", "Time", "Number", "Name", "Physician", "Institution"}
    allowed = {"PatientOrientation", "PatientOrientationInFrameSequence", "NumberOfFrames"}
    allowed |= {"TransferSyntaxUID", "MediaStorageSOPClassUID", "SOPClassUID"}
    assert not [keyword for keyword in KEYWORDS if keyword not in allowed and any(i in keyword for i in identities)]


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
def test_decode_dicom_reads_every_native_syntax(write_dicom: WriteDicom, syntax: str) -> None:
    assert decode_dicom(write_dicom(RAMP, native=syntax)).pixels.tolist() == STRETCHED


@pytest.mark.parametrize("syntax", NATIVE[:3], ids=lambda syntax: syntax.name)
def test_decode_image_reads_a_data_set_without_preamble(write_dicom: WriteDicom, syntax: str) -> None:
    path = write_dicom(RAMP, native=syntax)
    content = path.read_bytes()
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    path.write_bytes(content[content.index(np.array([8, 0x16], f"{order}u2").tobytes(), 132) :])

    assert decode_image(path).pixels.tolist() == STRETCHED


def test_decode_image_reads_file_meta_information_without_preamble(write_dicom: WriteDicom) -> None:
    path = write_dicom(RAMP)
    path.write_bytes(path.read_bytes()[132:])

    assert decode_image(path).pixels.tolist() == STRETCHED


@pytest.mark.parametrize(
    ("written", "claimed"),
    [(ImplicitVRLittleEndian, ExplicitVRLittleEndian), (ExplicitVRLittleEndian, ImplicitVRLittleEndian)],
)
def test_decode_dicom_reads_what_claims_the_other_vr(write_dicom: WriteDicom, written: str, claimed: str) -> None:
    path = write_dicom(RAMP, native=written)
    content = path.read_bytes()
    pad = "\0" if len(written) % 2 else ""
    old = f"{written}{pad}".encode()
    assert len(written) <= len(old)
    new = claimed.encode().ljust(len(old), b"\0")[: len(old)] if len(claimed) <= len(old) else None
    if new is None:
        head = content[: content.index(old) - 2]
        tail = content[content.index(old) + len(old) :]
        value = claimed.encode() + b"\0" * (len(claimed) % 2)
        content = head + len(value).to_bytes(2, "little") + value + tail
    else:
        content = content.replace(old, new, 1)
    path.write_bytes(content)

    assert decode_dicom(path).pixels.tolist() == STRETCHED


@pytest.mark.parametrize(
    "start", [b"", b"\0" * 132, b"II*\0" * 40, b"patient_id,image,file\n" * 9, b"\x08\0", b"PK\3\4" * 9]
)
def test_looks_like_dicom_is_false_for_other_content(start: bytes) -> None:
    assert not looks_like_dicom(start)


def test_decode_dicom_passes_over_the_pixels_of_an_icon(write_dicom: WriteDicom) -> None:
    icon = _item(Rows=1, Columns=1, BitsAllocated=8)
    icon.add_new("PixelData", "OB", b"\7\0")

    assert decode_dicom(write_dicom(RAMP, IconImageSequence=Sequence([icon]))).pixels.tolist() == STRETCHED


def test_decode_dicom_refuses_sequences_without_end(write_dicom: WriteDicom) -> None:
    path = write_dicom(RAMP)
    start = path.read_bytes()[:132]
    nested = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 5000
    path.write_bytes(start + nested)

    with pytest.raises(ImageError, match="deep") as refused:
        decode_dicom(path)
    assert refused.value.rule == "unreadable-image"
