"""Transfer syntaxes, on pydicom's own files, whose right values pydicom or GDCM gives."""

import io
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import ComputedRadiographyImageStorage, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from client.data.dicom import decode_dicom
from client.data.gray_image import SMALLEST_SIDE
from client.data.images import open_image
from client.data.problems import ImageError

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
ALL = sorted(path for path in FILES.rglob("*") if path.is_file())
DicomAsFilm = Callable[[str], Path]


@pytest.fixture
def dicom_as_film(tmp_path: Path) -> DicomAsFilm:
    """A file of pydicom's, or a copy that calls itself a radiograph where it is none; nothing else is changed."""

    def write(name: str) -> Path:
        dataset = dcmread(FILES / name)
        if dataset.get("Modality") == "OT":
            return Path(shutil.copy(FILES / name, tmp_path / "film.dcm"))
        dataset.Modality = "CR"
        gray = dataset.SamplesPerPixel == 1
        dataset.SOPClassUID = ComputedRadiographyImageStorage if gray else SecondaryCaptureImageStorage
        dataset.save_as(tmp_path / "film.dcm")
        return tmp_path / "film.dcm"

    return write


def _stretch(values: np.ndarray) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    return np.rint((values.astype(float) - low) * (65535 / (high - low)))


@pytest.mark.parametrize(
    "name",
    [
        "693_J2KI.dcm",
        "JPEG2000.dcm",
        "JPEGLSNearLossless_08.dcm",
        "JPEGLSNearLossless_16.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
        "image_dfl.dcm",
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_decode_dicom_reads_gray_files_as_pydicom_does(dicom_as_film: DicomAsFilm, name: str) -> None:
    path = dicom_as_film(name)
    dataset = dcmread(path)
    for keyword in ("WindowCenter", "WindowWidth", "VOILUTFunction", "PatientOrientation", "PixelPaddingValue"):
        dataset.pop(keyword, None)
    dataset.save_as(path)

    assert np.array_equal(decode_dicom(path).pixels, _stretch(dataset.pixel_array))


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_decode_dicom_reads_jpeg_of_12_bits_as_gdcm_does(dicom_as_film: DicomAsFilm, name: str) -> None:
    path = dicom_as_film(name)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    raw = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    expected = np.frombuffer(raw, dtype="<u2").reshape(1024, 256)
    dataset = dcmread(path)
    center, width = float(dataset.get("WindowCenter", 0)), float(dataset.get("WindowWidth", 0))

    shown = decode_dicom(path).pixels

    right = _stretch(expected)
    if width:
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        values = expected * slope + intercept
        right = np.rint(np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 65535)
    assert np.array_equal(shown, right)


@pytest.mark.parametrize("bits", [10, 12])
def test_decode_dicom_reads_jpeg_of_12_bits_that_gdcm_wrote(
    write_dicom: Callable[..., Path], tmp_path: Path, bits: int
) -> None:
    """GDCM writes 16 for the precision into such a stream."""
    pixels = (np.arange(40 * 36, dtype=np.uint16).reshape(40, 36) * 2) >> (12 - bits)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(write_dicom(pixels, BitsStored=bits)))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "extended.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()

    assert np.abs(decode_dicom(tmp_path / "extended.dcm").pixels - _stretch(pixels)).max() <= 65535 / pixels.max()


def test_decode_dicom_reads_a_stream_that_holds_the_end_of_a_sequence(write_dicom: Callable[..., Path]) -> None:
    """Fragments are as long as they say: bytes like those of a delimiter may stand in them."""
    pixels = np.arange(40 * 36, dtype=np.uint16).reshape(40, 36) // 8
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels.astype(np.uint8))
    picture.save(buffer, "JPEG", quality=100, comment=b"\xfe\xff\xdd\xe0\0\0\0\0 and so on")
    assert b"\xfe\xff\xdd\xe0" in buffer.getvalue()

    path = write_dicom(pixels.astype(np.uint8), syntax=JPEGBaseline8Bit, stream=buffer.getvalue())

    assert np.abs(decode_dicom(path).pixels - pixels * (65535 / 179)).max() <= 3 * 257 * 255 / 179


@pytest.mark.parametrize(
    "name",
    [path.name for path in ALL if path.name.startswith(("SC_rgb", "SC_ybr", "SC_jpeg", "examples_jpeg2k", "GDCMJ2K"))],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_decode_dicom_reads_colour_files_as_pydicom_does(dicom_as_film: DicomAsFilm, name: str) -> None:
    path = dicom_as_film(name)
    dataset = dcmread(path)
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        with pytest.raises(ImageError) as refused:
            decode_dicom(path)
        assert refused.value.rule == "multi-frame"
        return
    rgb = dataset.pixel_array.astype(float)
    luma = rgb @ [0.299, 0.587, 0.114] / ((1 << dataset.BitsStored) - 1) * 65535

    assert np.abs(decode_dicom(path).pixels - luma).max() <= 2 * 257


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore")
def test_open_image_reads_or_refuses_by_name_each_of_pydicoms_files(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image, refused = None, None
    with caplog.at_level(logging.INFO):
        try:
            image = open_image(path)
        except ImageError as error:
            refused = error

    if image is None:
        assert refused is not None
        assert refused.rule
        assert refused.detail.endswith(".")
    else:
        assert min(image.pixels.shape) >= SMALLEST_SIDE
        assert dcmread(path).get("Modality") in ("CR", "OT")
    assert "Traceback" not in caplog.text
