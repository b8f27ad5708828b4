"""Functional groups of an enhanced object with one frame, brought to where a plain object has the same attributes.

Source: DICOM PS3.3 C.7.6.16 (multi-frame functional groups).
"""

from client.data.dicom.elements import DataSet, differs, invalid
from client.data.problems import ImageError, fault

_MACROS = {
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope", "ModalityLUTSequence"),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PatientOrientationInFrameSequence": ("PatientOrientation",),
}


def lift_groups(data_set: DataSet) -> None:
    """Put what the groups of the only frame say among the attributes of the object.

    Raises:
        ImageError: groups of several frames, or an attribute that stands in two places with two values.
    """
    frames = data_set.items("PerFrameFunctionalGroupsSequence")
    if len(frames) > 1:
        raise multi_frame(f"functional groups of {len(frames)}")
    for group in (*data_set.items("SharedFunctionalGroupsSequence"), *frames):
        for macro, keywords in _MACROS.items():
            items = group.items(macro)
            if len(items) > 1:
                raise invalid(macro, expected="one item", got=f"{len(items)}")
            for item in items:
                _lift(data_set, item, keywords)


def _lift(data_set: DataSet, item: DataSet, keywords: tuple[str, ...]) -> None:
    for keyword in keywords:
        if not item.holds(keyword):
            continue
        if data_set.holds(keyword) and data_set.texts(keyword) != item.texts(keyword):
            raise differs(keyword, header="one value", pixels="another value in the functional groups")
        data_set.elements[keyword] = item.elements[keyword]


def multi_frame(got: str) -> ImageError:
    """What is said of several frames."""
    return ImageError("multi-frame", fault(expected="one frame", got=got, remedy="Export the radiograph alone"))
