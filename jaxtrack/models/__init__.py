"""Layers and standard backbones as Flax Linen modules; what one tracker alone uses lies in its folder.

Module names repeat the published parameter names (``name="conv1.0"``), so that joining a parameter's path
with dots gives the name in the published checkpoint and the trackers' name tables stay short.
"""
