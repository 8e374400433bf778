"""SiamFC (2016): fully-convolutional siamese matching over a pyramid of scales."""
