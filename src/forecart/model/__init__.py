"""The two towers, their event encoder, negatives and losses: tensors in, tensors out."""
