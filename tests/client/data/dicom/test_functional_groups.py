from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, Sequence

from client.data.dicom import decode_dicom
from client.data.problems import ImageError

WriteDicom = Callable[..., Path]
RAMP = np.array([[0, 100], [200, 400]], dtype=np.uint16)


def _groups(**macros: dict[str, object]) -> Sequence:
    group = Dataset()
    for macro, attributes in macros.items():
        item = Dataset()
        for keyword, value in attributes.items():
            setattr(item, keyword, value)
        setattr(group, macro, Sequence([item]))
    return Sequence([group])


@pytest.mark.parametrize("place", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_decode_dicom_applies_the_window_and_rescale_of_a_group(write_dicom: WriteDicom, place: str) -> None:
    # 2 v - 100 gives -100, 100, 300, 700; the exact window from 100 to 500 maps them to 0, 0, 1/2, 1.
    groups = _groups(
        FrameVOILUTSequence={"WindowCenter": 300, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
        PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": -100},
    )

    image = decode_dicom(write_dicom(RAMP, NumberOfFrames=1, **{place: groups}))

    assert image.pixels.tolist() == [[0, 0], [32768, 65535]]


def test_decode_dicom_takes_spacing_and_orientation_of_a_group(write_dicom: WriteDicom) -> None:
    groups = _groups(
        PixelMeasuresSequence={"PixelSpacing": [0.4, 0.2]},
        PatientOrientationInFrameSequence={"PatientOrientation": ["R", "F"]},
    )

    image = decode_dicom(write_dicom(RAMP, SharedFunctionalGroupsSequence=groups))

    assert image.pixel_aspect == 2
    assert image.pixels.tolist() == [[16384, 0], [65535, 32768]]


def test_decode_dicom_refuses_two_windows_that_differ(write_dicom: WriteDicom) -> None:
    groups = _groups(FrameVOILUTSequence={"WindowCenter": 300, "WindowWidth": 400})
    path = write_dicom(RAMP, WindowCenter=200, WindowWidth=400, SharedFunctionalGroupsSequence=groups)

    with pytest.raises(ImageError, match="WindowCenter: expected one value") as refused:
        decode_dicom(path)
    assert refused.value.rule == "header-differs"


def test_decode_dicom_refuses_groups_of_two_frames(write_dicom: WriteDicom) -> None:
    groups = Sequence([*_groups(), *_groups()])

    with pytest.raises(ImageError) as refused:
        decode_dicom(write_dicom(RAMP, PerFrameFunctionalGroupsSequence=groups))
    assert refused.value.rule == "multi-frame"
