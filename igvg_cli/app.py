"""The root command: adds all commands, and turns errors into one line and an exit status."""

from __future__ import annotations

import errno
import functools
import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igvg_cli import options, render, streams
from igvg_cli.progress import Display
from pipelines.runtime.distributed import leave_process_group, run_program
from pipelines.runtime.launch import is_main_process, require_one_process
from pipelines.runtime.signals import ExitReport, RaiseOnSignal, Stopped, handle_signals
from shards.errors import IGVGError, describe_system_error
from shards.progress import set_sink
from shards.remote_addresses import redact_addresses
from shards.remote_folders import show_addresses

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# Also the order in which --help lists them; `import` is a word of Python, so its module has another name.
COMMANDS = {
    "prepare": "prepare",
    "train": "train",
    "predict": "predict",
    "score": "score",
    "compare": "compare",
    "convert": "convert",
    "sweep": "sweep",
    "report": "report",
    "serve": "serve",
    "ablate": "ablate",
    "run": "run",
    "demo": "demo",
    "import": "import_checkpoint",
    "push": "push",
    "inspect": "inspect",
    "verify": "verify",
    "audit": "audit",
}
# Commands whose work several processes share; `igvg predict --from` refuses them itself.
DISTRIBUTED = frozenset({"train", "predict"})
# An error that all ranks raise is printed by rank 0; the launcher ends the other ranks within this time.
PRECEDENCE_SECONDS = 5
ANYWHERE = "Anywhere on the command line: --quiet shows no progress, --debug the traceback of an error."
SWITCHES = ("--debug", "--quiet")
EPILOG = "Every command says more with --help. igvg --install-completion sets up completion for your shell."


class Debug:
    """Whether tracebacks are shown."""

    shown = False


class Output:
    """Whether standard output was closed when the program was started."""

    closed = False


def build_app() -> typer.Typer:
    """The command line with every command added."""
    app = typer.Typer(
        name="igvg",
        help="Generalized visual grounding: prepare → train → predict → score.",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_root)
    for name, module in COMMANDS.items():
        loaded = importlib.import_module(f"igvg_cli.{module}")
        command_class = getattr(loaded, "COMMAND_CLASS", None)
        app.command(name, epilog=ANYWHERE, cls=command_class)(_report_errors(name, getattr(loaded, module)))
    return app


def main() -> None:
    """The console command `igvg`."""
    # GNU OpenMP reads how long waiting threads spin when torch is loaded. Long spinning takes processor time from the
    # thread that is waited for if other programs run, too; no spinning at all is slow on an idle machine.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    Output.closed = sys.stdout is None
    streams.open_streams()
    arguments, switches = split_switches(sys.argv[1:])
    Debug.shown, Display.quiet = "--debug" in switches, "--quiet" in switches
    if not is_main_process(os.environ):
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115, for good
    ExitReport.function = staticmethod(_report_stop)
    run_program(lambda: _run(arguments))


def _run(arguments: list[str]) -> None:
    with set_sink(log=render.note), handle_signals(_exit_at_once):
        try:
            build_app()(arguments, prog_name="igvg")
        except IGVGError as error:
            # Of an argument that was read before its command ran, or of any command for the sake of its traceback.
            if Debug.shown:
                raise
            render.note(f"Error: {_format_error(error)}")
            sys.exit(1)


def split_switches(words: list[str]) -> tuple[list[str], set[str]]:
    """The arguments without the root command's switches, and these: they may stand anywhere before `--`."""
    end = words.index("--") if "--" in words else len(words)
    switches = {word for word in words[:end] if word in SWITCHES}
    return [word for position, word in enumerate(words) if position >= end or word not in SWITCHES], switches


def _show_version(requested: bool) -> None:
    if requested:
        from importlib import metadata

        render.print_line(f"igvg {metadata.version('igvg')}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_show_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress; errors and results stay.")] = False,
) -> None:
    """Options that come before the command."""


def _report_errors(name: str, command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        interruption = RaiseOnSignal()
        try:
            with interruption:
                if name not in DISTRIBUTED:
                    require_one_process(name, os.environ)
                streams.check_output(name, closed=Output.closed)
                options.refuse_addresses(kwargs)
                command(*args, **kwargs)
                leave_process_group()
        except Stopped as stopped:
            raise typer.Exit(_report_stop(stopped)) from None
        except BrokenPipeError:
            # The reader of a pipe, e.g. `igvg … | head`, has ended; click exits without a message.
            raise
        except Exception as error:
            if interruption.received is not None:
                # What the signal interrupted, e.g. communication of several processes, may raise errors of its own.
                raise typer.Exit(_report_stop(Stopped(interruption.received))) from None
            error = _name_link_loop(error)
            _defer_to_rank_0(error)
            if Debug.shown or not isinstance(error, (IGVGError, OSError)):
                raise
            render.note(f"Error: {_format_error(error)}")
            raise typer.Exit(1) from None

    return guarded


def _report_stop(stopped: Stopped) -> int:
    """Say in one line what a signal did; returns the exit status."""
    word = "Interrupted" if stopped.signum == signal.SIGINT else f"Stopped by {stopped.signum.name}"
    what = stopped.saved or "nothing is half-written"
    render.note(f"{word}: {what}{'; the same command goes on from what was finished' if stopped.resumable else ''}.")
    return stopped.status


def _exit_at_once(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """The handler of a signal while no command runs: there is nothing to save."""
    os._exit(_report_stop(Stopped(signum)))


def _defer_to_rank_0(error: Exception) -> None:
    """Let rank 0 print an error that all ranks raise; an error of this rank alone is printed by this rank."""
    if not is_main_process(os.environ) and sys.__stderr__ is not None:
        if getattr(error, "on_all_ranks", False):
            raise typer.Exit(1) from None
        time.sleep(PRECEDENCE_SECONDS)
        sys.stderr = sys.__stderr__


def _name_link_loop(error: Exception) -> Exception:
    """An error as it is; what Python 3.11 and 3.12 raise for links that form a loop as the system's error."""
    loop = error.__context__
    if isinstance(error, RuntimeError) and isinstance(loop, OSError) and loop.errno == errno.ELOOP:
        return loop
    return error


def _format_error(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        text = where + describe_system_error(error)
    return " ".join(show_addresses(redact_addresses(text)).split())
