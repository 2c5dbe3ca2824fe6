"""Histories, vocabularies and labels: what a user did, in arrival order, and what a model has to know."""
