"""Evaluation: metrics, protocols, result files, benchmarks and reports. Runs from a checkout."""
