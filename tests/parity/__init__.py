"""Parity with the published codes: ``python -m tests.parity PACK [--case NAME]``."""
