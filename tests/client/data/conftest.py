"""DICOM files made by the test itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

WriteDicom = Callable[..., Path]


@pytest.fixture
def write_dicom(tmp_path: Path) -> WriteDicom:
    """Write stored values as a DICOM file; keywords set or override attributes."""

    def write(
        pixels: np.ndarray,
        *,
        name: str = "image.dcm",
        syntax: str | None = None,
        native: UID = ExplicitVRLittleEndian,
        stream: bytes | list[bytes] | None = None,
        **attributes: Any,
    ) -> Path:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = native
        dataset = Dataset()
        dataset.file_meta = meta
        dataset.SOPClassUID = meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.PatientName = "Doe^Jane"
        dataset.PatientID = "secret"
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
        dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
        if pixels.ndim == 3:
            dataset.PlanarConfiguration = 0
        dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        order = pixels.dtype.newbyteorder("<" if native.is_little_endian else ">")
        dataset.PixelData = np.ascontiguousarray(pixels).astype(order).tobytes()
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        if "HighBit" not in attributes:
            dataset.HighBit = dataset.BitsStored - 1
        if stream is not None:  # pixels that somebody else has compressed
            dataset.file_meta.TransferSyntaxUID = UID(syntax or native)
            dataset.PixelData = encapsulate([stream] if isinstance(stream, bytes) else stream)
            dataset["PixelData"].is_undefined_length = True
        elif syntax is not None:
            dataset.compress(syntax)
        dataset["PixelData"].VR = "OB" if syntax is not None or dataset.BitsAllocated <= 8 else "OW"
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return write
