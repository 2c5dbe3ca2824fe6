"""What every test stands on: the same examples in every run, whatever the machine is doing beside it."""

from hypothesis import settings

settings.register_profile("forecart", deadline=None, derandomize=True, database=None)
settings.load_profile("forecart")
