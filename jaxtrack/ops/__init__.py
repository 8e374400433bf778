"""Pure array functions: boxes, crops, convolution, correlation, response maps, anchors."""
