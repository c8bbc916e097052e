import gc
import sys

from hftool.serving import client


def main() -> None:
    """Run the command line, on the server where there is one; exits."""
    client.run_on_server(sys.argv[1:])
    # What is imported stays: Python need not look for garbage in it again and again.
    gc.set_threshold(100_000, 50, 100)
    from hftool import cli

    cli.main()


if __name__ == "__main__":
    main()
