"""Flax Linen modules; the only folder that imports ``flax.linen``.

Module names repeat the published parameter names (``name="conv1.0"``), so that joining a parameter's path
with dots gives the name in the published checkpoint and the tables in `jaxtrack.weights` stay short.
"""
