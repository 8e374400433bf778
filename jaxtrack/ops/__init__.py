"""Pure array functions that several trackers share: boxes, crops, convolution, correlation, response maps."""
