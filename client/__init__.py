"""One hospital: it reads its own patients, trains on them, and lets nothing out but aggregates."""
