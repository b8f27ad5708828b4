"""The multimodal model: one encoder a modality, their fusion, and the heads."""
