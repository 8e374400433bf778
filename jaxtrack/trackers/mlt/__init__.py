"""MLT (2019): target-specific kernels, predicted by a meta-learner from the gradient of the loss."""
