"""Benchmarks: mcverify beside the best its peers do, beside what the machine could do at most. See README.md."""
