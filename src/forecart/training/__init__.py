"""One loop that trains a two-tower model, with checkpoints that resume bitwise."""
