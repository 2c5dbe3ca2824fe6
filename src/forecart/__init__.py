"""forecart: ads candidate generation from behavioural sequences."""

__version__ = "0.1.0"
