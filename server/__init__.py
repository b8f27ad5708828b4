"""The coordinator: it asks hospitals for aggregates, combines them, and holds no patient data."""
