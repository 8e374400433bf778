"""What `eval.speed` measures: trackers and their parts, formulations, throughput, the input pipeline."""
