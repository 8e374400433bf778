"""Training: one loop for every tracker, from a laptop's CPU to many hosts.

``python -m train.run PRESET`` (see `train.run`). `train.step` holds what a task must offer.
"""
