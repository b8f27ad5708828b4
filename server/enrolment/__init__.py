"""Enrolment: the coordinator's certificates, the registry of hospitals, and Flower's list of nodes."""
