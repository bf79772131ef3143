"""The command `trueup-agent`: join a primary, run, and say how it stands."""

import argparse
import logging
import os
import resource
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import trio

from agent import tls
from agent.address import Address
from agent.backoff import Backoff
from agent.drift import DriftWatch
from agent.errors import SettingsError, TrueupError
from agent.failures import single
from agent.link import LinkLost
from agent.logs import setup_logs, visible
from agent.memory import Memory
from agent.node_token import NodeToken
from agent.pairing import TokenRefused, pair
from agent.privileges import become, give_up
from agent.recent import RecentLooks
from agent.rules import AgentRules, why_no_root
from agent.session import Agent, Identity
from agent.settings import (
    DEFAULT_CONFIG,
    DEFAULT_STATE_DIR,
    AgentConfig,
    check_directory,
    check_fingerprint,
    check_node,
    config_path,
    load_config,
    parse_allow,
    parse_config,
    private_paths,
    render_config,
    secret_setting,
)
from agent.status import Board, Status, hold_lock, is_running, read_status, without_agent
from agent.version import agent_version
from agent.wire.channel import Channel
from agent.wire.messages import TaskReport, Work

OPEN_FILES = 8192
"""Descriptors that the agent allows itself: each task may hold 128 files and 64 directories a thread."""


MAX_TOKEN_LINE = 4096
"""Characters of a token on standard input."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done (or, for `status`, connected), 1 failed or not connected, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    setup_logs(arguments.log_format)
    try:
        return int(arguments.verb(arguments, os.environ))
    except TrueupError as error:
        print(f"trueup-agent: {visible(str(error))}", file=sys.stderr)  # noqa: T201 - what the user reads
        return error.exit_code
    except KeyboardInterrupt:
        return 130


UNANSWERED_PATIENCE = 60.0
REFUSED_PATIENCE = 10.0
"""Seconds that a join goes on trying where no primary answers, and where one does not know the token."""


# --- join --------------------------------------------------------------------------------------


def join(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Pair this host with a primary; nothing is written to agent.toml unless that succeeded."""
    # Killed anywhere, the same command again carries on: the certificate stays the one that the primary
    # may have recorded, and whoever is recorded already is accepted again.
    path = config_path(arguments.config, environ)
    config = _joined_config(arguments, path)
    token = _join_token(arguments, environ, Memory(config.state_dir, config.tls_dir))
    pinned = config.fingerprint is not None
    lock = hold_lock(config.state_dir)
    try:
        _check_writable(path)
        address, fingerprint = trio.run(_pair_in_time, config, token, arguments.wait)
        config = replace(config, fingerprint=fingerprint)
        tls.write_private(path, render_config(config).encode())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        os.close(lock)
    _say(f"paired node {config.node} with the primary at {address}")
    named = f" --config {shlex.quote(str(path))}" if arguments.config is not None else ""
    _say(f"wrote {path}; start the agent with: trueup-agent run{named}")
    if not config.rules.roots:
        _warn(f"no --root was given: until {path} names one, nothing may be written on this host")
    for why in filter(None, map(why_no_root, config.rules.roots)):
        _warn(f"{why}: until that is mended, nothing may be written there")
    if not pinned:
        _warn(f"no --pin was given: the primary with the fingerprint {fingerprint} is trusted from now on")
    return 0


def _joined_config(arguments: argparse.Namespace, path: Path) -> AgentConfig:
    """What agent.toml shall say: the flags, and for what they do not say, what it said for this node."""
    node = check_node(arguments.node)
    try:
        before = parse_config(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        state_dir = Path(check_directory(arguments.state_dir or str(DEFAULT_STATE_DIR), "--state-dir"))
        before = AgentConfig(node, (), None, state_dir, state_dir / "tls", AgentRules(roots=()))
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{path}: is there and cannot be read") from None
    if before.node != node:
        raise SettingsError(
            f"{path} belongs to the node {before.node}", hint="give another --config, or remove that file"
        )
    given = None if arguments.state_dir is None else Path(check_directory(arguments.state_dir, "--state-dir"))
    if given not in (None, before.state_dir):
        raise SettingsError(
            f"{path} has the state directory {before.state_dir}", hint="edit it, or leave out --state-dir"
        )
    rules = before.rules
    if arguments.root:
        roots = tuple(check_directory(root, "--root") for root in arguments.root)
        rules = msgspec.structs.replace(rules, roots=roots)
    if arguments.owner:
        rules = msgspec.structs.replace(rules, owners=tuple(arguments.owner))
    if arguments.allow:
        rules = msgspec.structs.replace(rules, commands=dict(parse_allow(text) for text in arguments.allow))
    return replace(
        before,
        primaries=tuple(Address.parse(text) for text in arguments.primary),
        fingerprint=check_fingerprint(arguments.pin) if arguments.pin is not None else before.fingerprint,
        rules=rules,
    )


def _join_token(arguments: argparse.Namespace, environ: Mapping[str, str], memory: Memory) -> NodeToken:
    if arguments.token is not None:
        return NodeToken.from_text(arguments.token, where="--token")
    if arguments.token_file == "-":  # noqa: S105 - a file's name
        return NodeToken.from_text(sys.stdin.readline(MAX_TOKEN_LINE).strip(), where="standard input")
    if arguments.token_file is not None:
        environ = {"SYNC_NODE_TOKEN_FILE": arguments.token_file}
    text = secret_setting("SYNC_NODE_TOKEN", environ)
    if text is None:
        if (stored := memory.token()) is not None:
            return stored
        raise SettingsError(
            "there is no token", hint="give --token-file, or set SYNC_NODE_TOKEN or SYNC_NODE_TOKEN_FILE"
        )
    return NodeToken.from_text(text, where="SYNC_NODE_TOKEN")


async def _pair_in_time(config: AgentConfig, token: NodeToken, wait: float | None) -> tuple[Address, str]:
    """Pair as soon as a primary answers that knows the node: one that only makes passes listens only
    meanwhile, and any knows a node from its next pass on."""
    begun = trio.current_time()
    backoff = Backoff(longest=2.0)
    told: set[str] = set()
    while True:
        try:
            return await _pair_somewhere(config, token)
        except LinkLost as error:
            failed: TrueupError = error
            patience, why = UNANSWERED_PATIENCE, "a primary listens while it reconciles"
        except TokenRefused as error:
            failed = error
            patience, why = REFUSED_PATIENCE, "a primary knows a new node from its next pass on"
        patience = patience if wait is None else wait
        delay = backoff.next()
        if trio.current_time() + delay > begun + patience:
            raise failed
        if why not in told:
            _warn(f"{failed.message}; trying for {patience:g} seconds: {why}")
            told.add(why)
        await trio.sleep(delay)


async def _pair_somewhere(config: AgentConfig, token: NodeToken) -> tuple[Address, str]:
    """Pair at the first address that answers, and remember it."""
    memory = Memory(config.state_dir, config.tls_dir)
    certificate = await trio.to_thread.run_sync(memory.identity, config.node)
    problems: list[str] = []
    for address in config.primaries:
        try:
            fingerprint = await pair(
                address, node=config.node, certificate=certificate, token=token, pin=config.fingerprint
            )
        except LinkLost as error:
            problems.append(str(error))
            continue
        await trio.to_thread.run_sync(memory.remember_token, token)
        await trio.to_thread.run_sync(memory.remember_server, fingerprint)
        return address, fingerprint
    raise LinkLost(
        "; ".join(problems), hint="start `trueup reconcile` there, check address and firewall, and join again"
    )


def _check_writable(path: Path) -> None:
    """Find out before pairing, not after, that the configuration cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tls.check_writable(path)
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be written: {error.strerror}", hint="run this as root, or give --config"
        ) from None


# --- run ---------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; then exit 0."""
    config = load_config(arguments.config, environ)
    rules = msgspec.structs.replace(config.rules, private=private_paths(config, arguments.config, environ))
    _raise_open_files()
    if config.user:
        # Python goes on to import what it needs.
        needed = (Path(__file__), Path(os.__file__))
        become(config.user, (config.state_dir, config.tls_dir), needed=needed)
    if config.drop_privileges or (config.drop_privileges is None and not config.rules.commands):
        give_up()
    lock = hold_lock(config.state_dir)
    try:
        trio.run(_run, replace(config, rules=rules))
    finally:
        os.close(lock)
    return 0


def _raise_open_files() -> None:
    """Lets this process open as many files as its tasks may need; 1024, the usual limit, is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run(config: AgentConfig) -> None:
    memory = Memory(config.state_dir, config.tls_dir)
    token = config.token or memory.token()
    if token is None:
        raise SettingsError(
            "this agent has no token",
            hint="run `trueup-agent join`, or set SYNC_NODE_TOKEN or SYNC_NODE_TOKEN_FILE",
        )
    identity = Identity(config.node, token, memory.identity(config.node), config.fingerprint)
    board = Board(
        config.state_dir, node=config.node, version=agent_version(), metrics_file=config.metrics_file
    )
    looks = RecentLooks()
    runner = partial(_run_work, config, looks)
    drift = DriftWatch(config.rules, config.state_dir, interval=config.drift_interval, looked=board.looked)
    agent = Agent(identity, config.primaries, memory, board, runner, max_tasks=config.max_tasks, drift=drift)
    if not config.rules.roots:
        logging.getLogger("trueup.agent").warning("no roots are configured: every task will be refused")
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_stop_on_signal, nursery.cancel_scope)
            nursery.start_soon(looks.expire)
            nursery.start_soon(agent.run)
    except BaseExceptionGroup as group:
        raise single(group) from None
    await board.stopped()


async def _run_work(config: AgentConfig, looks: RecentLooks, task: Work, channel: Channel) -> TaskReport:
    from agent.work import run_work

    return await run_work(task, channel, rules=config.rules, state_dir=config.state_dir, looks=looks)


async def _stop_on_signal(
    scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
            return


# --- status ------------------------------------------------------------------------------------


def status(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print how the agent stands; 1 if it is not connected."""
    config = load_config(arguments.config, environ)
    # What it wrote last comes second: an agent that ends between the two has written how its tasks ended.
    running = is_running(config.state_dir)
    found = read_status(config.state_dir)
    if found is None or not running:
        found = without_agent(found or Status(node=config.node, version=agent_version(), pid=0))
    if arguments.output == "json":
        _say(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _say("\n".join(_describe(found)))
    return 0 if found.connected else 1


def _describe(found: Status) -> list[str]:
    lines = [f"node:       {found.node}", f"version:    {found.version}"]
    if found.connected:
        lines.append(f"connected:  yes, to {found.primary} since {found.since}")
    else:
        lines.append(f"connected:  no: {visible(found.problem)}")
    if found.running:
        lines.append(f"running:    {found.running} task{'s' if found.running > 1 else ''}")
    task = found.last_task
    if task is not None:
        outcome = " ".join(filter(None, [task.state, task.reason, task.message]))
        lines.append(f"last task:  {task.at} {visible(f'{task.project} to {task.target_path}: {outcome}')}")
    if found.last_sync:
        lines.append(f"last sync:  {found.last_sync}")
    if found.drifted is not None:
        what = "none" if not found.drifted else f"{found.drifted} entr{'y' if found.drifted == 1 else 'ies'}"
        lines.append(f"drift:      {what}, looked at {found.drift_seen}")
    return lines


# --- the command line --------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trueup-agent", description=__doc__)
    parser.add_argument("--version", action="version", version=f"trueup-agent {agent_version()}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help=f"agent.toml (TRUEUP_AGENT_CONFIG, {DEFAULT_CONFIG})"
    )
    common.add_argument("--log-format", choices=("text", "json"), default="text")
    verbs = parser.add_subparsers(required=True, metavar="join | run | status")

    joining = verbs.add_parser(
        "join", parents=[common], help="pair this host with a primary", description=join.__doc__
    )
    joining.add_argument(
        "--primary", action="append", required=True, metavar="HOST:PORT", help="may be given several times"
    )
    joining.add_argument("--node", required=True, help="the host's name in the spec")
    token = joining.add_mutually_exclusive_group()
    token.add_argument("--token", help="from `trueup node add` (or SYNC_NODE_TOKEN, SYNC_NODE_TOKEN_FILE)")
    token.add_argument("--token-file", metavar="FILE", help="the file that holds it; - for standard input")
    joining.add_argument(
        "--pin", metavar="FINGERPRINT", help="the primary's; without it, the first is trusted"
    )
    joining.add_argument(
        "--root", action="append", metavar="DIR", help="a directory below which trueup may write"
    )
    joining.add_argument(
        "--owner", action="append", metavar="NAME", help="a user or group that files may get"
    )
    joining.add_argument(
        "--allow", action="append", metavar="NAME=COMMAND", help="a command that may run after a sync"
    )
    joining.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="how long to try until a primary answers (60), and knows the node (10)",
    )
    joining.add_argument("--state-dir", metavar="DIR", help=f"keys and records ({DEFAULT_STATE_DIR})")
    joining.set_defaults(verb=join)

    running = verbs.add_parser("run", parents=[common], help="serve until stopped", description=run.__doc__)
    running.set_defaults(verb=run)

    telling = verbs.add_parser(
        "status", parents=[common], help="say whether it is connected", description=status.__doc__
    )
    telling.add_argument("-o", "--output", choices=("text", "json"), default="text")
    telling.set_defaults(verb=status)
    return parser


def _say(text: str) -> None:
    print(text)  # noqa: T201 - the command's output


def _warn(text: str) -> None:
    print(f"trueup-agent: warning: {visible(text)}", file=sys.stderr)  # noqa: T201 - what the user reads
