"""Radiographs on disk: another scanner, a marker, then DICOM or PNG; the same picture gives the same bytes."""

import math
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from simulation.cohort.shapes import Plane
from simulation.cohort.sites import ImageFormat
from simulation.scenarios import Marker, Scanner

_FULL_12_BIT = 4095
# The second DICOM maker leaves head room; the window tags say so.
_STORED = {"dicom-monochrome2": (0, _FULL_12_BIT), "dicom-monochrome1": (300, 3700)}
_BODY_PART = {"hip": "HIP", "chest": "CHEST"}
_VIEW = {"hip": "AP", "chest": "PA"}


def rescan(pictures: Plane, scanner: Scanner) -> Plane:
    """The same pictures from another scanner."""
    gray = np.clip(scanner.gain * pictures**scanner.gamma, 0, 1)
    return _blur(gray, sigma=scanner.blur_fraction * pictures.shape[-1])


def _blur(pictures: Plane, *, sigma: float) -> Plane:
    """Gaussian blur, separable, edges repeated; sigma in pixels."""
    reach = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        size = pictures.shape[axis]
        padded = np.pad(pictures, [(reach, reach) if place == axis else (0, 0) for place in range(3)], mode="edge")
        shifted = (np.take(padded, range(step, step + size), axis=axis) for step in range(2 * reach + 1))
        pictures = sum(weight * part for weight, part in zip(weights.tolist(), shifted, strict=True))
    return pictures


def marker_pixels(marker: Marker, size: int) -> tuple[int, int, int, int]:
    """The marker's box in pixels: left, top, right, bottom (the last two excluded)."""
    left, top, right, bottom = (round(edge * size) for edge in marker.box)
    return left, top, right, bottom


def stamp(pictures: Plane, marker: Marker) -> Plane:
    """The same pictures with the marker."""
    left, top, right, bottom = marker_pixels(marker, pictures.shape[-1])
    stamped = pictures.copy()
    stamped[:, top:bottom, left:right] = 1.0
    return stamped


def suffix_of(image_format: ImageFormat) -> str:
    """File name suffix."""
    return ".png" if image_format == "png" else ".dcm"


def write_image(
    path: Path, gray: Plane, *, image_format: ImageFormat, image: str, patient_id: str, uid_seed: str
) -> None:
    """Write one radiograph.

    Args:
        path: of the new file.
        gray: 0 (black) to 1 (white), [size, size].
        image_format: PNG has 8 bits; DICOM 12 bits, MONOCHROME1 stores white as 0, and window tags.
        image: hip or chest.
        patient_id: written into the DICOM header.
        uid_seed: decides the DICOM identifiers.
    """
    if image_format == "png":
        Image.fromarray(np.rint(gray * 255).astype(np.uint8)).save(path)
        return
    _dicom(gray, image_format=image_format, image=image, patient_id=patient_id, uid_seed=uid_seed).save_as(
        path, enforce_file_format=True
    )


def _dicom(gray: Plane, *, image_format: ImageFormat, image: str, patient_id: str, uid_seed: str) -> Dataset:
    low, high = _STORED[image_format]
    stored = np.rint(low + (high - low) * gray).astype(np.uint16)
    center = (low + high + 1) / 2
    if image_format == "dicom-monochrome1":
        stored = np.uint16(_FULL_12_BIT) - stored
        center = _FULL_12_BIT + 1 - center
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = ComputedRadiographyImageStorage
    data.SOPInstanceUID = generate_uid(entropy_srcs=[uid_seed, "instance"])
    data.Modality = "CR"
    data.Manufacturer = "Synthetic"
    data.PatientName = ""
    data.PatientID = patient_id
    data.PatientIdentityRemoved = "YES"
    data.BodyPartExamined = _BODY_PART[image]
    data.ViewPosition = _VIEW[image]
    data.StudyInstanceUID = generate_uid(entropy_srcs=[uid_seed, "study"])
    data.SeriesInstanceUID = generate_uid(entropy_srcs=[uid_seed, "series"])
    data.InstanceNumber = 1
    data.BurnedInAnnotation = "NO"
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = image_format.removeprefix("dicom-").upper()
    data.Rows, data.Columns = gray.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth = center, high - low + 1
    data.PixelData = stored.astype("<u2").tobytes()
    return data
