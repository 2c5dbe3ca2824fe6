"""In front of an ad server: a request in, candidates with their provenance out, whatever breaks.

Takes a store, releases and an inventory; gives answers within a deadline, labelled with where they come from
and what was amiss. `service` is a plain object that knows no HTTP; `app` is a thin layer of HTTP around it.
Nothing here imports torch.
"""
