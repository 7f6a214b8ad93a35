"""`python -m hoptm` is the command `hoptm`."""

from hoptm.cli import main

if __name__ == "__main__":
    main()
