"""Benchmarks: fastrnn against its NumPy reference and this machine's peak; see README.md."""
