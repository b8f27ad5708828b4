"""Radiographs among DICOM objects, told by Modality and SOP class: any object may hold gray pixels.

Source: DICOM PS3.3 C.7.3.1.1.1 (modality), PS3.4 B.5 (SOP classes). "DR" and "SC" are no terms of DICOM, but written.
"""

from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EnhancedXAImageStorage,
    EnhancedXRFImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from client.data.dicom.elements import DataSet
from client.data.problems import ImageError, fault, quote

MODALITIES = frozenset({"CR", "DX", "DR", "RG", "RF", "XA"})
SAYS_NOTHING = frozenset({"OT", "SC"})
_FILM_CLASSES = frozenset(
    {
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForPresentation,
        XRayAngiographicImageStorage,
        XRayRadiofluoroscopicImageStorage,
        EnhancedXAImageStorage,
        EnhancedXRFImageStorage,
    }
)
_CAPTURE_CLASSES = frozenset(
    {
        SecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)
_STANDARD = "1.2.840.10008."


def refuse_other_objects(data_set: DataSet) -> None:
    """Stop at what is no radiograph, or none made for display.

    Raises:
        ImageError: another modality or SOP class, or an object that tells neither.
    """
    modality = data_set.text("Modality")
    sop_class = (data_set.texts("SOPClassUID") or ("",))[0]
    if sop_class == DigitalXRayImageStorageForProcessing or data_set.text("PresentationIntentType") == "FOR PROCESSING":
        remedy = "Export the image for presentation that the device made of it"
        detail = fault(expected="a radiograph for presentation", got="one for processing", remedy=remedy)
        raise ImageError("not-for-display", detail)
    if not _is_film(modality, sop_class):
        name = UID(sop_class).name if sop_class else "none"
        raise ImageError(
            "not-a-radiograph",
            fault(
                expected=f"X-ray: Modality {', '.join(sorted(MODALITIES))}, or OT of a secondary capture",
                got=f"Modality {quote(modality) if modality else 'none'}, SOP class {name}",
                remedy="Export the radiograph itself; if this is one, have Modality set to CR or DX",
            ),
        )


def _is_film(modality: str, sop_class: str) -> bool:
    capture = sop_class in _CAPTURE_CLASSES
    if sop_class in _FILM_CLASSES:
        return not modality or modality in MODALITIES | SAYS_NOTHING
    if capture or not sop_class.startswith(_STANDARD):  # a private class, or none, contradicts nothing
        return modality in MODALITIES or (capture and modality in SAYS_NOTHING)
    return False
