import gc
import signal
import sys


def main() -> None:
    """Run the command line, on the server where there is one; exits."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to clear up
    # What is imported stays: Python need not look for garbage in it again and again.
    gc.set_threshold(100_000)
    from hftool.server import client

    client.run_on_daemon(sys.argv[1:])
    from hftool.cli.app import main

    main()


if __name__ == "__main__":
    main()
