"""What the notebooks 00, 10 and 11 show: a landscape, a tree, an attacked image, an explorer."""
