"""The start of every command line; also `python -m igvg_cli`, the form that launchers start."""

import signal


def main() -> None:
    """The console command `igvg`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until there is work to keep, Ctrl-C ends the process without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from igvg_cli.app import main as run

    run()


if __name__ == "__main__":
    main()
