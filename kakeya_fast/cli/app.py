"""The commands and what they share: errors without tracebacks, ``--json``, one console."""

from __future__ import annotations

import logging
from typing import Any

import typer
from rich.logging import RichHandler
from typer.core import TyperGroup

from kakeya_fast.cli.calibrate import calibrate
from kakeya_fast.cli.codecs import codecs
from kakeya_fast.cli.conform import conform
from kakeya_fast.cli.demo import demo
from kakeya_fast.cli.inspect import inspect
from kakeya_fast.cli.plan import plan
from kakeya_fast.cli.quality import quality
from kakeya_fast.cli.screen import ERRORS
from kakeya_fast.cli.stages import stages
from kakeya_fast.cli.sweep import depth, layers
from kakeya_ref.errors import KakeyaError

EXTRA_OF = {
    "torch": "hf",
    "transformers": "hf",
    "safetensors": "hf",
    "numba": "numba",
    "matplotlib": "cli",
    "gguf": "models",
    "sentencepiece": "models",
    "kakeya_conformance": "conformance",
}


class Guarded(TyperGroup):
    """Turns errors raised on purpose, and missing extras, into one line and exit code 2."""

    def invoke(self, ctx: typer.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KakeyaError as error:
            message = str(error)
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            if module not in EXTRA_OF:
                raise
            message = f"this needs {module}: pip install 'kakeya-kv[{EXTRA_OF[module]}]'"
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(2)


app = typer.Typer(
    cls=Guarded,
    name="kakeya",
    help="Packed KV caches: formats, quality, conformance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options(
    verbose: bool = typer.Option(False, "--verbose", help="Log everything to stderr."),
) -> None:
    """Packed KV caches: formats, quality, conformance."""
    # A second call (tests, embedding) must not add a second handler.
    log = logging.getLogger("kakeya")
    if not log.handlers:
        log.addHandler(RichHandler(console=ERRORS, show_path=False, show_time=False))
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


app.command()(demo)
app.command()(quality)
app.command()(stages)
app.command()(depth)
app.command()(layers)
app.command()(plan)
app.command()(calibrate)
app.command()(codecs)
app.command()(inspect)
app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(conform)
