"""`forecart` and `python -m forecart`."""

from forecart.cli import app


def main() -> None:
    """Runs the command line and exits with its code."""
    app(prog_name="forecart")


if __name__ == "__main__":
    main()
