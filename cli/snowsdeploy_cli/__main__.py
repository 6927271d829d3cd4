"""`snowsdeploy` and `python -m snowsdeploy_cli`; until the door has the signals, Ctrl-C ends the program silently."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run() -> None:
    """Entry point."""
    from snowsdeploy_cli.entry import main

    main()


if __name__ == "__main__":
    run()
