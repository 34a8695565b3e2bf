"""Measurements of speed and memory of training and sampling."""
