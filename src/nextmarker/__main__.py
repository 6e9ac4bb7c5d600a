"""``python -m nextmarker`` is the command line."""

from nextmarker.cli import main

if __name__ == "__main__":  # spawned processes import this file too
    raise SystemExit(main())
