"""What every hospital and the coordinator must agree on: study schema, model, preprocessing, metrics, messages."""
