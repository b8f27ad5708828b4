"""The run folder: its files, and their summary on the screen."""
