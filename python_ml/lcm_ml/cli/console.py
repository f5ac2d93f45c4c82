"""What every command shares: results to stdout, everything else to stderr, and the exit codes."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from lcm_ml import logs
from lcm_ml.errors import LcmError, UsageError

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]

AsOfOption = Annotated[
    datetime | None,
    typer.Option(help="One of marts.as_of_dates. Default: the end of the data.", formats=["%Y-%m-%d"]),
]

Advance = Callable[[str, float], None]
"""Tells a progress bar what is under way and the share done, 0 to 1."""

_STEERING = (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_HIDDEN = dict.fromkeys(_STEERING, "\ufffd")
del _HIDDEN[ord("\n")], _HIDDEN[ord("\t")]


def visible(text: str) -> str:
    """A text without what steers a terminal or turns its writing round, so that data cannot pass for something else."""
    return text.translate(_HIDDEN)


class _Visible(RenderHook):
    """Passes everything that is printed through `visible`; what Rich itself sends to the terminal stays."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_VisibleText(renderable) for renderable in renderables]


class _VisibleText:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self.renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def _console(**settings: Any) -> Console:
    # Names and texts of a shop are no markup: [red] or :smile: in one is shown as it is.
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, **settings)
    console.push_render_hook(_Visible())
    return console


# A pipe has no width of its own; 80 would cut the tables.
out = _console(width=None if sys.stdout.isatty() else 120)
err = _console(stderr=True)


def line(label: str, text: str, style: str = "bold", width: int = 11) -> None:
    """Print a text behind a label with a style; the text is shown as it is."""
    out.print(Text.assemble((f"{label:<{width}}", style), text))


def show_share(users_share: float) -> None:
    """Say when not all users were learned from."""
    if users_share < 1:
        out.print(
            f"these are {users_share:.3g} of the users, drawn by their ids: all would be more rows than the "
            "var max_training_rows allows"
        )


def notify(message: str) -> None:
    """Tell whoever watches, on stderr, so that stdout stays clean for pipes."""
    logs.event("notice", "warning", message=message)
    if os.environ.get(logs.VARIABLE) != logs.STDERR:
        err.print(message, style="yellow")


def _plain(value: Any) -> Any:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def emit(result: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], None]) -> None:
    """Print a command's result: as JSON, or with `show` for people."""
    if as_json:
        sys.stdout.write(json.dumps(result, default=_plain, indent=2) + "\n")
    else:
        show(result)


def confirm(question: str, refusal: str, yes: bool, as_json: bool, show: Callable[[], None] = lambda: None) -> None:
    """Go on only when somebody says so, or said so with --yes.

    Args:
        question: put on the terminal.
        refusal: what is told where there is nobody to ask.
        yes: do not ask.
        as_json: the command's output is for a program.
        show: what is asked about, shown before the question.

    Raises:
        UsageError: when there is nobody to ask.
    """
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise UsageError(refusal, "add --yes")
    show()
    typer.confirm(question, abort=True, err=True)


def with_interval(figure: dict[str, Any] | None, form: str = ".3f", value: str = "value") -> str:
    """A figure with its 95 % interval (ci_low, ci_high), where it has one; - where there is no figure."""
    if figure is None or figure[value] is None:
        return "-"
    text = f"{figure[value]:{form}}"
    if figure["ci_low"] is None:
        return text
    return f"{text} ({figure['ci_low']:{form}} to {figure['ci_high']:{form}})"


@contextmanager
def command(as_json: bool = False) -> Iterator[None]:
    """Turn what goes wrong in the block into one message and an exit code: 1 failed, 2 wrong use."""
    try:
        with logs.call():
            yield
    except LcmError as error:
        _fail(error, as_json)
    except KeyboardInterrupt:
        err.print("stopped; nothing half done was kept", style="yellow")
        raise typer.Exit(130) from None


def _fail(error: LcmError, as_json: bool) -> None:
    if os.environ.get("LCM_DEBUG"):
        raise error
    if as_json:
        document = {"error": error.message, "next_step": error.next_step, "exit_code": error.exit_code}
        sys.stdout.write(json.dumps(document | ({"run_id": error.run_id} if error.run_id else {})) + "\n")
    elif os.environ.get(logs.VARIABLE) != logs.STDERR:
        err.print(f"error: {error.message}", style="bold red")
        if error.next_step:
            err.print(f"  next: {error.next_step}")
        if error.run_id:
            err.print(f"  run:  {error.run_id}")
    raise typer.Exit(error.exit_code)


class Laps:
    """How long the steps of a command took.

    Attributes:
        seconds: of each step that ended, in their order.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def end(self, step: str) -> None:
        """A step is over, which began when the one before it ended."""
        now = time.monotonic()
        self.seconds[step] = round(now - self._began, 2)
        self._began = now
        logs.event("lap", step=step, seconds=self.seconds[step])


@contextmanager
def progress(title: str, as_json: bool = False) -> Iterator[Advance]:
    """A progress bar on stderr while the block runs; nothing where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=as_json or not err.is_terminal) as bars:
        task = bars.add_task(title, total=1.0)
        before = ""

        def advance(what: str, share: float) -> None:
            nonlocal before
            if what != before:
                before = what
                logs.event("step", step=what, share=round(share, 3))
            bars.update(task, description=f"{title}: {what}", completed=share)

        yield advance
