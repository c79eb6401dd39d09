"""`python -m engine.cli` is the command `masklets`."""

from engine.cli.main import main

if __name__ == "__main__":
    main()
