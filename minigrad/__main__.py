"""Run the command `minigrad` with `python -m minigrad`."""

import sys

from minigrad import interrupt


def main() -> int:
    """Run the command line and return its exit status."""
    from minigrad.cli import main as command  # imported here, while `interrupt` handles Ctrl-C
    interrupt.usual()
    try:
        return command()
    except KeyboardInterrupt:
        return interrupt.STATUS


if __name__ == "__main__":
    sys.exit(main())
