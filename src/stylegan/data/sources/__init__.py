"""Sources of images: folders, archives, and the data sets of other programs."""
