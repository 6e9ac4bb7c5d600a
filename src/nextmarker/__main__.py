"""``python -m nextmarker`` is the command line."""

from nextmarker.cli import main

if __name__ == "__main__":  # processes that the system starts afresh import this file too
    raise SystemExit(main())
