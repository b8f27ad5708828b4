"""Kinds of modality: one class each, with everything that depends on the kind, and a registry by kind."""
