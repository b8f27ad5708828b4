"""The steps of a study: each asks the hospitals, and adds up their answers."""
