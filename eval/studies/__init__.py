"""Experiments of the papers, one command each."""
