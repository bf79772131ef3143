"""Whether what was deployed is well: HTTP, TCP or a command, tried until it passes or the time is over.

A probe gives None for healthy, else why not in a few words: without an address, a time or a counter, so that
the same trouble reads the same in each pass. What cannot be asked is not healthy; no probe raises for it.
"""

import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import trio

from reconciler.deploy.build_user import hand_over
from reconciler.deploy.context import Identity, RunContext, private_home, task_environment
from reconciler.deploy.output import Masker, last_lines
from reconciler.deploy.process import StartFailed, run_captured
from reconciler.deploy.request import no_log
from reconciler.errors import StepFailed, TrueupError
from reconciler.secrets.values import Secret
from reconciler.spec.model import Health
from reconciler.status.conditions import bounded

TRY: Final = 10.0
"""Seconds that one try over the network may take."""

COMMAND_TRY: Final = 60.0
"""Seconds of one run of a command: that may wait for something itself."""

MAX_WHY: Final = 300

Probe = Callable[[], Awaitable[str | None]]
"""One try."""


class HealthCheckFailed(StepFailed):
    """It was deployed, and did not become healthy in time."""

    reason = "HealthCheckFailed"


@dataclass(frozen=True, slots=True)
class CommandPlace:
    """Where a command runs: as the tasks of the repository do."""

    checkout: Path
    variables: Mapping[str, str | Secret] = field(repr=False)
    identity: Identity
    masker: Masker
    context: RunContext
    log: Callable[[str], None] = no_log


async def wait_healthy(probe: Probe, health: Health) -> str | None:
    """Try every `interval` until it is healthy; else, after `timeout`, why it was not the last time."""
    last: str | None = None
    longest = COMMAND_TRY if health.command else TRY
    with trio.move_on_after(health.timeout):
        while True:
            last = await try_once(probe, longest)
            if last is None:
                return None
            await trio.sleep(health.interval)
    return last or "no answer"


async def try_once(probe: Probe, deadline: float) -> str | None:
    """One try, which is cut after so many seconds."""
    with trio.move_on_after(deadline):
        return await probe()
    return f"no answer within {deadline:g}s"


def probe_of(health: Health, place: CommandPlace | None = None) -> Probe:
    """What tries it. A command needs a place."""
    if health.http is not None:
        return partial(probe_http, health.http)
    if health.tcp is not None:
        return partial(probe_tcp, health.tcp)
    if place is None:
        raise TypeError("a command needs a place to run in")
    return partial(probe_command, health.command, place)


async def probe_http(url: str) -> str | None:
    """Healthy is an answer of 200 to 399. No redirect is followed, and no more read than the head."""
    import httpx

    try:
        tls = await trio.to_thread.run_sync(ssl.create_default_context) if url.startswith("https:") else False
        # The proxies and .netrc of this machine are for other things than its services.
        async with (
            httpx.AsyncClient(verify=tls, trust_env=False, timeout=None, follow_redirects=False) as client,  # noqa: S113 - the try has a deadline; plain HTTP needs no context
            client.stream("GET", url, headers={"User-Agent": "trueup-health"}) as response,
        ):
            return judge_status(response.status_code)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, UnicodeError, ValueError) as error:
        return why(error)


async def probe_tcp(address: str) -> str | None:
    """Healthy is a port that takes a connection."""
    host, _, port = address.rpartition(":")
    try:
        stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    except (OSError, UnicodeError, ValueError) as error:
        return why(error)
    await trio.aclose_forcefully(stream)
    return None


async def probe_command(command: tuple[str, ...], place: CommandPlace) -> str | None:
    """Healthy is exit code 0. Cancelled, it leaves no process behind."""
    context = place.context
    try:
        if context.build_user is not None:
            hand = partial(hand_over, place.checkout, context.build_user, state_dir=context.state_dir)
            await trio.to_thread.run_sync(hand)
        async with private_home(context) as home:
            completed = await run_captured(
                command,
                cwd=place.checkout,
                env=task_environment(context.base_environment, place.variables, place.identity, home),
                timeout=COMMAND_TRY,
                masker=place.masker,
                user=context.build_user,
                on_line=place.log,
            )
    except StartFailed as error:
        # The work tree has another name each time, and the same failure should read the same.
        return bounded(str(error).replace(f" in {place.checkout}", ""), MAX_WHY)
    except (TrueupError, OSError) as error:
        return bounded(str(error), MAX_WHY)
    return judge_command(completed.exit_code, completed.output.replace(f"{place.checkout}/", ""))


def judge_status(status: int) -> str | None:
    return None if 200 <= status < 400 else f"HTTP {status}"


def judge_command(exit_code: int, output: str) -> str | None:
    """`output` is masked."""
    if exit_code == 0:
        return None
    how = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
    said = last_lines(output, lines=2, limit=MAX_WHY)
    return f"the command {how}" + (f": {said}" if said else "")


def why(error: BaseException) -> str:
    """In a few words why nothing answered as it should."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "no TLS could be agreed on"
        if isinstance(cause, socket.gaierror):
            return "its name was not found"
        if isinstance(cause, OSError) and cause.errno in (errno.ECONNRESET, errno.EPIPE):
            return "the connection broke off"
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno).lower()
    return bounded(str(error), MAX_WHY) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that led to it."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions
        waiting += [each for each in (cause.__cause__, cause.__context__) if each is not None]
