"""DICOM radiographs: from a file to the gray values that a radiologist would see.

`decode_dicom` is what the rest of the reader calls; header.py says which attributes are read, and what is refused by
them; grayscale.py and colour.py make display values; geometry.py turns the patient upright.

Source: DICOM PS3.3 C.7.6.3 (image pixel), C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.6.1.1.1 (patient orientation).
"""

from client.data.dicom.decoding import decode_dicom

__all__ = ["decode_dicom"]
