"""`python -m reprobuild`."""

from reprobuild.cli import main

if __name__ == "__main__":
    main()
