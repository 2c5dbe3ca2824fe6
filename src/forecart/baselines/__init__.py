"""Simple recommenders that every model is compared with, and that serve as fallback lists.

Each gives the user's score for every candidate from conversions that arrived before a cut. In a run they are
fitted anew at each cut, so unlike a frozen model they always know the last day: a fair and hard comparison.
`forecart bench --protocol loo` lets them learn only as far as the model, as papers do.
"""
