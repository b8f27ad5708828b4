"""The study that the synthetic hospitals take part in: its schema.toml, and the schema read from it."""

from functools import cache

from shared_model.schema import Schema, parse_schema

SERIES = "vitals"
EVENTS = "medications"
HIP = "hip"
CHEST = "chest"

_NUMERIC = """
[[static]]
name = "{0}"
kind = "numeric"
unit = "{1}"
range = [{2}, {3}]
"""
_BINARY = """
[[static]]
name = "{0}"
kind = "binary"
"""
_CATEGORICAL = """
[[static]]
name = "{0}"
kind = "categorical"
levels = [{1}]
"""
_CHANNEL = """
[[series.vitals.channels]]
name = "{0}"
unit = "{1}"
range = [{2}, {3}]
"""

# The range of creatinine is wide enough to let mg/dL pass: a unit shift must be found by looking, not by the range.
_NUMERICS = (
    ("age_years", "years", 50.0, 110.0),
    ("bmi_kg_m2", "kg/m2", 10.0, 60.0),
    ("haemoglobin_g_l", "g/L", 40.0, 220.0),
    ("albumin_g_l", "g/L", 10.0, 60.0),
    ("creatinine_umol_l", "umol/L", 0.2, 2000.0),
    ("crp_mg_l", "mg/L", 0.0, 600.0),
    ("sodium_mmol_l", "mmol/L", 100.0, 180.0),
    ("hours_to_surgery", "h", 0.0, 400.0),
)
_BINARIES = (
    "male",
    "dementia",
    "heart_failure",
    "atrial_fibrillation",
    "copd",
    "diabetes",
    "stroke",
    "renal_disease",
    "malignancy",
    "anticoagulant",
)
_CATEGORICALS = (
    ("asa_class", ("I", "II", "III", "IV")),
    ("mobility", ("independent", "one_aid", "frame", "wheelchair")),
    ("residence", ("own_home", "sheltered", "nursing_home")),
    ("fracture_type", ("femoral_neck", "trochanteric", "subtrochanteric")),
    ("anaesthesia", ("spinal", "general")),
)
_CHANNELS = (
    ("hr_bpm", "/min", 0.0, 300.0),
    ("sbp_mmhg", "mmHg", 0.0, 300.0),
    ("dbp_mmhg", "mmHg", 0.0, 250.0),
    ("spo2_pct", "%", 0.0, 100.0),
    ("etco2_kpa", "kPa", 0.0, 20.0),
    ("temp_c", "degC", 20.0, 45.0),
)
_ITEMS = (
    "propofol_mg",
    "fentanyl_ug",
    "morphine_mg",
    "ketamine_mg",
    "bupivacaine_mg",
    "noradrenaline_ug",
    "ephedrine_mg",
    "atropine_mg",
    "cefazolin_mg",
    "tranexamic_acid_mg",
    "dexamethasone_mg",
    "ondansetron_mg",
    "paracetamol_mg",
    "furosemide_mg",
    "crystalloid_ml",
    "red_cells_ml",
)


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def schema_text(image_size: int) -> str:
    """Content of the cohort's schema.toml.

    Args:
        image_size: edge of both radiographs, pixels.
    """
    parts = [
        (
            "# Synthetic hip-fracture patients: no real person is described.\n[study]\n"
            'name = "synthetic-hip-fracture"\ntitle = "Synthetic cohort: death within 30 days of surgery"\n'
            'outcome = "death_30d"\npatient_id = "patient_id"\n'
        )
    ]
    parts += [_NUMERIC.format(*column) for column in _NUMERICS]
    parts += [_BINARY.format(name) for name in _BINARIES]
    parts += [_CATEGORICAL.format(name, _quoted(levels)) for name, levels in _CATEGORICALS]
    parts.append('\n[series.vitals]\ntime_unit = "min"\nstart = 0.0\nstep = 2.0\nsteps = 60\n')
    parts += [_CHANNEL.format(*channel) for channel in _CHANNELS]
    parts.append(f'\n[events.medications]\naggregate = "dose"\nitems = [{_quoted(_ITEMS)}]\n')
    parts.append('recorded = "medications_recorded"\n')
    parts += [f"\n[images.{name}]\nsize = {image_size}\n" for name in (HIP, CHEST)]
    return "".join(parts)


@cache
def study_schema(image_size: int) -> Schema:
    """The schema that `schema_text` describes."""
    return parse_schema(schema_text(image_size), source="schema.toml")
