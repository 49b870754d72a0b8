"""Benchmarks of the SRD transport and of Soft EFA: see ../README.md for how to read their figures."""
