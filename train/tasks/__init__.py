"""The training tasks. Each module is one: config, sample, loss, and ``PRESETS`` (see `train.step.Task`)."""

# One name per module here that has ``PRESETS: dict[str, train.presets.Preset]``.
FAMILIES = ("siamfc", "siamrpn", "ostrack", "mlt")
