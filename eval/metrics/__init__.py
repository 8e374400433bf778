"""Scores, as the toolkits of the field compute them, each variant under its name."""
