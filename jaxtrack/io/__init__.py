"""Video, images and boxes as text: NumPy and OpenCV only, no model."""
