"""The synthetic world: clips and training pairs drawn from a random key, on the device, without files."""
