"""Trackers run over sequences: what is tracked, in slots side by side, by whom."""
