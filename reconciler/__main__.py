"""`python -m reconciler` is `trueup`."""

from reconciler.cli import main

if __name__ == "__main__":
    main()
