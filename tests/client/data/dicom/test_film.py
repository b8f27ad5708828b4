from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EncapsulatedPDFStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from client.data.dicom import decode_dicom
from client.data.problems import ImageError

WriteDicom = Callable[..., Path]
RAMP = np.array([[0, 100], [200, 400]], dtype=np.uint16)
PRIVATE = "1.2.40.0.13.1.7"


@pytest.mark.parametrize(
    ("modality", "sop_class"),
    [
        ("CR", ComputedRadiographyImageStorage),
        ("DX", ComputedRadiographyImageStorage),
        ("DX", DigitalXRayImageStorageForPresentation),
        ("DR", DigitalXRayImageStorageForPresentation),
        ("RG", ComputedRadiographyImageStorage),
        ("RF", XRayRadiofluoroscopicImageStorage),
        ("XA", XRayAngiographicImageStorage),
        ("", ComputedRadiographyImageStorage),
        ("OT", ComputedRadiographyImageStorage),
        ("OT", SecondaryCaptureImageStorage),
        ("SC", SecondaryCaptureImageStorage),
        ("CR", SecondaryCaptureImageStorage),
        ("CR", PRIVATE),
    ],
)
def test_decode_dicom_reads_what_is_an_x_ray(write_dicom: WriteDicom, modality: str, sop_class: str) -> None:
    path = write_dicom(RAMP, Modality=modality, SOPClassUID=sop_class)

    assert decode_dicom(path).pixels.tolist() == [[0, 16384], [32768, 65535]]


@pytest.mark.parametrize(
    ("modality", "sop_class"),
    [
        ("CT", CTImageStorage),
        ("MR", MRImageStorage),
        ("US", UltrasoundImageStorage),
        ("SEG", SegmentationStorage),
        ("MG", DigitalMammographyXRayImageStorageForPresentation),
        ("DOC", EncapsulatedPDFStorage),
        ("CT", ComputedRadiographyImageStorage),
        ("CR", CTImageStorage),
        ("", CTImageStorage),
        ("", SecondaryCaptureImageStorage),
        ("US", SecondaryCaptureImageStorage),
        ("NM", SecondaryCaptureImageStorage),
        ("OT", PRIVATE),
        ("", PRIVATE),
    ],
)
def test_decode_dicom_refuses_other_objects_by_name(write_dicom: WriteDicom, modality: str, sop_class: str) -> None:
    with pytest.raises(ImageError, match=modality or "Modality none") as refused:
        decode_dicom(write_dicom(RAMP, Modality=modality, SOPClassUID=sop_class))
    assert refused.value.rule == "not-a-radiograph"


@pytest.mark.parametrize(
    "attributes",
    [{"SOPClassUID": DigitalXRayImageStorageForProcessing}, {"PresentationIntentType": "FOR PROCESSING"}],
)
def test_decode_dicom_refuses_raw_detector_values(write_dicom: WriteDicom, attributes: dict[str, str]) -> None:
    with pytest.raises(ImageError) as refused:
        decode_dicom(write_dicom(RAMP, Modality="DX", **attributes))
    assert refused.value.rule == "not-for-display"
