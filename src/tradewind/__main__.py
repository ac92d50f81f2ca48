"""`python -m tradewind`: the command line, where the image has no scripts on its PATH."""

from tradewind.cli.main import main

if __name__ == "__main__":
    main()
