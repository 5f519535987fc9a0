"""`python -m grepunch` is `grepunch-pptp`."""

from grepunch.cli import main

if __name__ == "__main__":
    main()
