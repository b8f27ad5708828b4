"""The common ground of hospitals and coordinator: study schema, model, preprocessing, metrics, messages."""
