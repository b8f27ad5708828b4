"""Decode one DICOM radiograph to the gray values that a radiologist would see; nothing about the patient is read."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from client.data.dicom.colour import gray_of_colour
from client.data.dicom.geometry import pixel_aspect, upright
from client.data.dicom.grayscale import display_gray
from client.data.dicom.header import TAGS, refuse_unusable
from client.data.gray_image import GrayImage
from client.data.problems import ImageError, fault, quote


def decode_dicom(path: Path) -> GrayImage:
    """A single-frame radiograph as displayed: modality and VOI transforms applied, black is 0, standard orientation.

    Without a VOI transform a gray image is stretched from its smallest to its largest value; colour keeps its range.

    Raises:
        ImageError: multi-frame, burned-in annotation, too large, or no gray or colour radiograph.
        Exception: whatever the decoder of the transfer syntax raises for damaged data.
    """
    dataset = dcmread(path, specific_tags=list(TAGS))
    refuse_unusable(dataset)
    pixels = pixel_array(dataset)
    photometric = str(dataset.PhotometricInterpretation)
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        gray = display_gray(dataset, pixels)
    elif photometric == "PALETTE COLOR":
        gray = gray_of_colour(apply_color_lut(pixels, dataset))
    elif pixels.ndim == 3 and pixels.shape[2] == 3:
        gray = gray_of_colour(pixels)
    else:
        detail = fault(expected="gray or colour", got=quote(photometric), remedy="Export it as MONOCHROME2")
        raise ImageError("unreadable-image", detail)
    return upright(GrayImage(pixels=gray, pixel_aspect=pixel_aspect(dataset)), dataset)
