"""Comparison of the metrics with folders of expected values (``eval.score --pack``)."""
