"""Models of images or video and language."""
