"""Agreement of the model's importance with that of clinicians."""
