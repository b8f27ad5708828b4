import warnings
from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import apply_voi_lut
from pydicom.uid import JPEG2000Lossless, RLELossless

from client.data.dicom import decode_dicom
from client.data.images import decode_image
from client.data.problems import ImageError

WriteDicom = Callable[..., Path]

SAMPLES = Path(__file__).resolve().parents[3] / "../shared/data/images/hip_dicom_samples"
RAMP = np.array([[0, 100], [200, 400]], dtype=np.uint16)  # stretched over 0..65535: 0, 16384, 32768, 65535


def _pixels(path: Path) -> list[list[int]]:
    return decode_dicom(path).pixels.tolist()  # type: ignore[no-any-return]


def _lut(entries: list[int], *, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real hip radiographs (../shared/data) are not here")
@pytest.mark.parametrize("number", [1, 10, 107, 115, 116, 12, 121, 123, 138, 139])
def test_decode_dicom_equals_pydicom_and_pillow_on_real_hips(number: int) -> None:
    path = SAMPLES / f"331_DDH_{number}.dcm"
    expected = np.asarray(Image.fromarray(dcmread(path).pixel_array).convert("L"), dtype=np.uint16) * 257

    assert np.array_equal(decode_image(path).pixels, expected)
    assert expected.shape == (331, 331)


def test_decode_dicom_stretches_from_smallest_to_largest_without_window(write_dicom: WriteDicom) -> None:
    assert _pixels(write_dicom(RAMP)) == [[0, 16384], [32768, 65535]]


def test_decode_dicom_inverts_monochrome1(write_dicom: WriteDicom) -> None:
    path = write_dicom(RAMP, PhotometricInterpretation="MONOCHROME1")

    assert _pixels(path) == [[65535, 49151], [32768, 0]]


def test_decode_dicom_keeps_sixteen_bits(write_dicom: WriteDicom) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)

    assert np.array_equal(decode_dicom(write_dicom(values)).pixels, values)


def test_decode_dicom_reads_signed_values(write_dicom: WriteDicom) -> None:
    values = np.array([[-1000, 0], [1000, 3000]], dtype=np.int16)

    assert _pixels(write_dicom(values)) == [[0, 16384], [32768, 65535]]


def test_decode_dicom_applies_slope_and_intercept_before_the_window(write_dicom: WriteDicom) -> None:
    # 2 v - 100 gives -100, 100, 300, 700; the exact window from 100 to 500 maps them to 0, 0, 1/2, 1.
    attributes = {"WindowCenter": 300, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}
    path = write_dicom(RAMP, RescaleSlope=2, RescaleIntercept=-100, **attributes)

    assert _pixels(path) == [[0, 0], [32768, 65535]]


def test_decode_dicom_honours_a_negative_slope(write_dicom: WriteDicom) -> None:
    assert _pixels(write_dicom(RAMP, RescaleSlope=-1, RescaleIntercept=0)) == [[65535, 49151], [32768, 0]]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_decode_dicom_windows_as_pydicom_does(write_dicom: WriteDicom, function: str) -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    attributes = {"WindowCenter": [1500, 9], "WindowWidth": [900, 9], "VOILUTFunction": function}
    path = write_dicom(values, BitsStored=12, **attributes)
    expected = apply_voi_lut(values, dcmread(path)) / 4095 * 65535

    assert np.abs(decode_dicom(path).pixels - expected).max() <= 0.5


def test_decode_dicom_takes_the_first_of_several_windows(write_dicom: WriteDicom) -> None:
    path = write_dicom(RAMP, WindowCenter=[200, 50], WindowWidth=[400, 10], VOILUTFunction="LINEAR_EXACT")

    assert _pixels(path) == [[0, 16384], [32768, 65535]]


def test_decode_dicom_applies_a_voi_lut_as_pydicom_does(write_dicom: WriteDicom) -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    entries = [round(4095 * (i / 2047) ** 2) for i in range(2048)]
    path = write_dicom(values, BitsStored=12, VOILUTSequence=[_lut(entries, first=1000, bits=12)])
    expected = apply_voi_lut(values, dcmread(path)) / 4095 * 65535

    assert np.abs(decode_dicom(path).pixels - expected).max() <= 0.5


def test_decode_dicom_prefers_the_voi_lut_to_the_window(write_dicom: WriteDicom) -> None:
    lut = _lut([4095, 2048, 0], first=100, bits=12)
    path = write_dicom(
        np.array([[99, 101], [102, 500]], np.uint16), VOILUTSequence=[lut], WindowCenter=1, WindowWidth=2
    )

    assert _pixels(path) == [[65535, 32776], [0, 0]]  # 2048 of 4095


def test_decode_dicom_looks_up_values_above_255_in_a_lut_of_8_bit_entries(write_dicom: WriteDicom) -> None:
    entries = [0] * 256 + [255] * 256  # pydicom's own look-up wraps 300 to 44
    path = write_dicom(np.array([[0, 255], [256, 300]], np.uint16), VOILUTSequence=[_lut(entries, first=0, bits=8)])

    assert _pixels(path) == [[0, 0], [65535, 65535]]


def test_decode_dicom_applies_the_modality_lut(write_dicom: WriteDicom) -> None:
    lut = _lut([300, 200, 100], first=0, bits=16)
    lut.ModalityLUTType = "US"

    assert _pixels(write_dicom(np.array([[0, 1], [2, 9]], np.uint16), ModalityLUTSequence=[lut])) == [
        [65535, 32768],
        [0, 0],
    ]


def test_decode_dicom_weighs_colours_as_itu_601(write_dicom: WriteDicom) -> None:
    rgb = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)

    assert _pixels(write_dicom(rgb)) == [[76 * 257, 150 * 257], [29 * 257, 65535]]


def test_decode_dicom_converts_ybr_to_gray(write_dicom: WriteDicom) -> None:
    ybr = np.full((2, 2, 3), 128, dtype=np.uint8)
    ybr[..., 0] = [[0, 50], [100, 200]]  # neutral chroma: luma is the gray value

    path = write_dicom(ybr, PhotometricInterpretation="YBR_FULL")

    assert _pixels(path) == [[0, 50 * 257], [100 * 257, 200 * 257]]


def test_decode_dicom_applies_the_palette(write_dicom: WriteDicom) -> None:
    palette = np.array([0, 128, 255, 9], dtype=np.uint8)
    attributes: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 8]
        attributes[f"{colour}PaletteColorLookupTableData"] = palette.tobytes()

    assert _pixels(write_dicom(np.array([[0, 1], [2, 2]], np.uint8), **attributes)) == [[0, 128 * 257], [65535, 65535]]


def test_decode_dicom_ignores_overlay_bits_above_the_stored_bits(write_dicom: WriteDicom) -> None:
    assert _pixels(write_dicom(RAMP | np.uint16(0x8000), BitsStored=12)) == [[0, 16384], [32768, 65535]]


def test_decode_dicom_blackens_padding_and_leaves_it_out_of_the_stretch(write_dicom: WriteDicom) -> None:
    values = np.array([[0, 100], [200, 65000]], dtype=np.uint16)
    path = write_dicom(values, PixelPaddingValue=65000, PhotometricInterpretation="MONOCHROME1")

    assert _pixels(path) == [[65535, 32768], [0, 0]]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (["L", "F"], [[0, 16384], [32768, 65535]]),
        (["R", "F"], [[16384, 0], [65535, 32768]]),
        (["L", "H"], [[32768, 65535], [0, 16384]]),
        (["R", "H"], [[65535, 32768], [16384, 0]]),
        (["F", "L"], [[0, 32768], [16384, 65535]]),
        (["H", "L"], [[16384, 65535], [0, 32768]]),
        (["F", "R"], [[32768, 0], [65535, 16384]]),
        (["RA", "FL"], [[16384, 0], [65535, 32768]]),
        (["A", "F"], [[0, 16384], [32768, 65535]]),
        (["P", "H"], [[32768, 65535], [0, 16384]]),
    ],
)
def test_decode_dicom_turns_the_patient_upright(
    write_dicom: WriteDicom, orientation: list[str], expected: list[list[int]]
) -> None:
    assert _pixels(write_dicom(RAMP, PatientOrientation=orientation)) == expected


def test_decode_dicom_keeps_the_image_when_the_orientation_is_empty(write_dicom: WriteDicom) -> None:
    assert _pixels(write_dicom(RAMP, PatientOrientation="")) == [[0, 16384], [32768, 65535]]


@pytest.mark.parametrize(
    ("tag", "value"), [("PixelSpacing", [0.4, 0.2]), ("ImagerPixelSpacing", [0.4, 0.2]), ("PixelAspectRatio", [2, 1])]
)
def test_decode_dicom_tells_pixels_that_are_not_square(write_dicom: WriteDicom, tag: str, value: list[float]) -> None:
    assert decode_dicom(write_dicom(RAMP, **{tag: value})).pixel_aspect == 2
    assert decode_dicom(write_dicom(RAMP, **{tag: value}, PatientOrientation=["F", "L"])).pixel_aspect == 0.5


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_decode_dicom_reads_compressed_pixels(write_dicom: WriteDicom, syntax: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, size=(64, 80), dtype=np.uint16)
    values[0, :2] = 0, 65535

    assert np.array_equal(decode_dicom(write_dicom(values, syntax=syntax)).pixels, values)


def test_decode_dicom_reads_jpeg_lossless(write_dicom: WriteDicom, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, size=(32, 24), dtype=np.uint16)
    values[0, :2] = 0, 65535
    reader = gdcm.ImageReader()
    reader.SetFileName(str(write_dicom(values)))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "lossless.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()

    assert dcmread(tmp_path / "lossless.dcm").file_meta.TransferSyntaxUID.name.startswith("JPEG Lossless")
    assert np.array_equal(decode_dicom(tmp_path / "lossless.dcm").pixels, values)


@pytest.mark.parametrize(
    ("rule", "attributes"),
    [
        ("burned-in-annotation", {"BurnedInAnnotation": "YES"}),
        ("multi-frame", {"NumberOfFrames": 2}),
        ("image-too-large", {"Rows": 60000, "Columns": 60000}),
        ("invalid-attribute", {"VOILUTSequence": [_lut([0, 1], first=0, bits=4)]}),
    ],
)
def test_decode_dicom_refuses_what_may_not_be_used(
    write_dicom: WriteDicom, rule: str, attributes: dict[str, object]
) -> None:
    path = write_dicom(RAMP, **attributes)

    with pytest.raises(ImageError) as refused:
        decode_dicom(path)
    assert refused.value.rule == rule


def test_decode_image_gives_zeros_for_a_constant_dicom(write_dicom: WriteDicom) -> None:
    path = write_dicom(np.full((2, 2), 700, dtype=np.uint16))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(path).pixels.tolist() == [[0, 0], [0, 0]]
