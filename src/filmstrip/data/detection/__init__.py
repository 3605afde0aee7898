"""Key frames of videos with the boxes of actors."""
