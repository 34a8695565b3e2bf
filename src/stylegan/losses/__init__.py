"""Losses and regularizers, one value per sample."""
