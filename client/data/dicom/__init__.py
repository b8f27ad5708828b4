"""DICOM radiographs: from a file to the gray values that a radiologist would see.

decoding.py is the way of a file through the others: parsing.py reads the listed elements (elements.py), film.py tells
whether it is a radiograph, functional_groups.py and header.py what the header says, codestream.py and agreement.py
whether the pixels agree, stored_values.py decodes them; grayscale.py, look_up.py and colour.py make display values,
geometry.py turns the patient upright. Where header and pixels, or two attributes, contradict each other, the image is
refused by the name of what differs: a wrong picture that looks right is worse than none.
"""

from client.data.dicom.decoding import decode_dicom
from client.data.dicom.parsing import looks_like_dicom

__all__ = ["decode_dicom", "looks_like_dicom"]
