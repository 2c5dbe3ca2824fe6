"""Vectors of users and candidates from a trained model."""
