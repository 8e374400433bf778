"""SiamRPN++ (2019): siamese region proposals on deep backbones."""
