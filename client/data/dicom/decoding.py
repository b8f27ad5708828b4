"""Decode one DICOM radiograph to the gray values that a radiologist would see; nothing about the patient is read."""

from pathlib import Path

from client.data.dicom.colour import gray_of_colour, gray_of_palette
from client.data.dicom.film import SAYS_NOTHING, refuse_other_objects
from client.data.dicom.functional_groups import lift_groups
from client.data.dicom.geometry import pixel_aspect, upright
from client.data.dicom.grayscale import display_gray
from client.data.dicom.header import read_header, refuse_unusable
from client.data.dicom.parsing import parse_dicom
from client.data.dicom.stored_values import read_stored_values
from client.data.gray_image import GrayImage


def decode_dicom(path: Path) -> GrayImage:
    """A single-frame radiograph as displayed: modality and VOI transforms applied, black is 0, standard orientation.

    Without a VOI transform a gray image is stretched from its smallest to its largest value; colour keeps its range.

    Raises:
        ImageError: no radiograph, more than one, one that may not be used, or a header that breaks a rule of DICOM or
            differs from the pixels.
    """
    file = parse_dicom(path)
    data_set = file.data_set
    refuse_other_objects(data_set)
    refuse_unusable(data_set)
    lift_groups(data_set)
    header = read_header(data_set)
    aspect = pixel_aspect(data_set)
    stored = read_stored_values(file, header)
    if header.is_gray:
        gray = display_gray(data_set, header, stored)
    elif header.samples == 1:
        gray = gray_of_palette(data_set, header, stored.values)
    else:
        gray = gray_of_colour(header, stored)
    is_unnamed = data_set.text("Modality") in SAYS_NOTHING
    return upright(GrayImage(pixels=gray, pixel_aspect=aspect, is_unnamed=is_unnamed), data_set)
