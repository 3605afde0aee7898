"""Key frames of videos with the boxes of those who act in them."""
