"""DICOM files made by the test itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

WriteDicom = Callable[..., Path]


@pytest.fixture
def write_dicom(tmp_path: Path) -> WriteDicom:
    """Write stored values as an uncompressed DICOM; keywords set or override attributes."""

    def write(pixels: np.ndarray, *, name: str = "image.dcm", syntax: str | None = None, **attributes: Any) -> Path:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(str(tmp_path / name), Dataset(), file_meta=meta, preamble=b"\0" * 128)
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
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
        if syntax is not None:
            dataset.compress(syntax)
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return write
