"""The program; its functions are in a module, which the processes of calls can import."""

import sys

from isolated_functions import main

if __name__ == "__main__":
    main(*sys.argv[1:])
