"""A finished run used on one machine: explained from its hospitals, and validated at others."""
