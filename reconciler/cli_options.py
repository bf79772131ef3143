"""What all commands of `trueup` share: the options of each, the settings made of them, the loop."""

import os
import sys
from collections.abc import Callable
from functools import update_wrapper, wraps
from typing import Any, NoReturn, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

OUTPUTS = ("table", "json", "yaml")


def connection_options(command: Command) -> Command:
    """The options that every verb takes; they stand before the variables of the same meaning."""
    for option in reversed(
        (
            click.option("--spec-repo", metavar="URL|PATH", help="Spec repository [TRUEUP_SPEC_REPO]."),
            click.option("--branch", metavar="NAME", help="Its branch [TRUEUP_SPEC_BRANCH, main]."),
            click.option("--state-dir", metavar="DIR", help="Where state is kept [TRUEUP_STATE_DIR]."),
            click.option("-v", "--verbose", count=True, help="More of the log; twice for all of it."),
            click.option(
                "--log-format", type=click.Choice(["text", "json"]), help="Form of the log on standard error."
            ),
        )
    ):
        command = option(command)
    return command


def make_settings(
    *,
    spec_repo: str | None,
    branch: str | None,
    state_dir: str | None,
    verbose: int,
    log_format: str | None,
) -> Any:
    """The settings made of flags and environment, with logging set up as they say."""
    from reconciler.crashes import mask_crashes
    from reconciler.logs import configure_logging
    from reconciler.secrets.known import KNOWN
    from reconciler.settings import load_settings
    from reconciler.spec.files import spec_repository_here

    settings = load_settings(
        os.environ,
        {
            "spec_repo": spec_repo or spec_repository_here(os.environ),
            "branch": branch,
            "state_dir": state_dir,
            "log_format": log_format,
        },
    )
    configure_logging(verbosity=verbose, log_format=settings.log_format, mask=KNOWN.mask)
    mask_crashes(KNOWN.mask)
    return settings


CONNECTION = ("spec_repo", "branch", "state_dir", "verbose", "log_format")


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Hands the command the settings made of flags and environment, logging set up."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        settings = make_settings(**{name: kwargs.pop(name) for name in CONNECTION})
        return command(settings, *args, **kwargs)

    return connection_options(update_wrapper(run, command))


output_option = click.option(
    "-o", "--output", type=click.Choice(OUTPUTS), default="table", help="Form of the output."
)


def parsed(name: str, parse: Callable[[str], float], text: str) -> float:
    """The value of the option `name`; one line for a person where it is none."""
    from reconciler.errors import SettingsError

    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {text!r} is not accepted; give {error}") from None


def run_async(function: Callable[[], Any]) -> Any:
    """Run an async function to its end in an event loop of its own."""
    import trio

    return trio.run(function)


def leave(code: int) -> NoReturn:
    """End the process with this exit code."""
    sys.exit(code)
