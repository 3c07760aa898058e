"""Benchmarks against real grids of processes, each with the floor of the same machine and run."""
