"""Long-running processes and their files: supervision, locks, ports, atomic writes."""
