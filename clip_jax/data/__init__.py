"""Sources of captioned images as tables with random access, and the order in which training reads them."""
