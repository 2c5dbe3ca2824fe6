"""From vectors to lists: exact search, eligibility and the merge with a user's own history."""
