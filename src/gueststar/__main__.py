"""`python -m gueststar`: the command line where the `gueststar` script is not on the path."""

from gueststar.cli.main import main

if __name__ == "__main__":
    main()
