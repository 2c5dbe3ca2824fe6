"""Measures of ranked lists: arrays in, floats out, no file, no config, no other part of the package."""
