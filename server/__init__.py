"""The coordinator: it asks hospitals for aggregates, combines them, and is sent no patient's record."""
