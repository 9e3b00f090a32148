"""What goes into a model: image files to pixels, captions to token ids."""
