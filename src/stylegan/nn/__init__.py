"""Layers with parameters, one idea per class."""
