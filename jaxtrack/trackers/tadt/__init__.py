"""TADT (2019): channels chosen for the target by the gradients of two losses."""
