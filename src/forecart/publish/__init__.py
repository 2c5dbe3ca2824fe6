"""From candidate tables to a release that an ad server reads: built, verified, gated, switched to.

Takes the folder of a finished run; gives an immutable release, a store that holds every user's record, and a
pointer to the release that is served. Nothing here imports torch.
"""
