import gc
import signal
import sys


def main() -> None:
    """Run the command line, in the daemon if one is running; exits."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until the application installs its handlers nothing needs cleaning up.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Imported modules live until the end; collecting garbage among them again and again is slow.
    gc.set_threshold(100_000)
    from hftool.server import client

    client.run_on_daemon(sys.argv[1:])
    from hftool.cli.app import main

    main()


if __name__ == "__main__":
    main()
