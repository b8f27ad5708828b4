"""The attributes of a DICOM file that are read, and the images that they rule out."""

from __future__ import annotations

from pydicom import Dataset

from client.data.gray_image import refuse_large
from client.data.problems import ImageError, fault

# A data set holds these tags only: name, birth date and all other identity are skipped in the file, never parsed.
TAGS = (
    "PatientOrientation",
    "BurnedInAnnotation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelAspectRatio",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
)
_NEEDED = ("Rows", "Columns", "PhotometricInterpretation", "PixelData")


def refuse_unusable(dataset: Dataset) -> None:
    """Stop at what is no single, clean radiograph of a sensible size.

    Raises:
        ImageError: no pixels, burned-in annotation, several frames, too large.
    """
    lacking = [tag for tag in _NEEDED if tag not in dataset]
    if lacking:
        detail = fault(expected="a whole image", got=f"no {', '.join(lacking)}", remedy="Export the image again")
        raise ImageError("unreadable-image", detail)
    if str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        detail = fault(
            expected="BurnedInAnnotation = NO",
            got="YES, so the pixels may show a name",
            remedy="Clean the pixels (DICOM PS3.15 Annex E), then set it to NO",
        )
        raise ImageError("burned-in-annotation", detail)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(
            "multi-frame", fault(expected="one frame", got=f"{frames}", remedy="Export the radiograph alone")
        )
    refuse_large(int(dataset.Columns), int(dataset.Rows))
