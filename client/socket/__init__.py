"""The local socket between the courier, which faces the network, and the worker, which holds the data."""
