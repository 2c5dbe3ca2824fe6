"""The command line: nouns, then verbs; one thin file per noun."""
