"""`python -m cvtrain`."""

from cvtrain.cli import main

if __name__ == "__main__":
    main()
