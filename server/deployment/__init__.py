"""The coordinator as a service: its folder, its two processes, and runs on them."""
