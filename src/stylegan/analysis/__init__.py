"""What the papers look at in a generator: artifacts, resolutions, spectra, noise."""
