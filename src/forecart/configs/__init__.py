"""The configurations that come with the package."""
