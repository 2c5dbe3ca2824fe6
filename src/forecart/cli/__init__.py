"""The command line: nouns, then verbs; one thin file per noun.

Results go to standard output and commentary to standard error, so that a pipe gets results alone. A mistake
of the caller is one line that begins with `error:` and the exit code 2.
"""

from forecart.cli.root import app

__all__ = ["app"]
