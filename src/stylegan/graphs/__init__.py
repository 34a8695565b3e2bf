"""Generators as files of computation graphs, which run without this package."""
