"""Losses and regularizers, one number per sample."""
