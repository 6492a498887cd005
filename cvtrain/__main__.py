"""`python -m cvtrain`."""

import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command listens: a traceback would help nobody
    from cvtrain.cli import main

    main()
