"""One command for a deploy, with its environment, in a target that is there.

This host's own configuration says which commands there are and which program each runs. Variables come
from the primary, so those that would change which code such a program runs are refused: a primary may
say that an allowed command runs, and not what it is.
"""

import re

import trio

from agent.commands import check_commands, command_environment, last_lines, run_command
from agent.errors import RemoteProtocolError
from agent.failures import TaskFailed
from agent.hiding import hide
from agent.pulse import quiet
from agent.rules import AgentRules
from agent.target import check_target, open_target
from agent.wire.messages import Command, TaskReport

MAX_VARIABLES = 4096

_REFUSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|IFS|BASH_ENV|BASH_FUNC_.*|CDPATH|GLOBIGNORE|PS4|SHELLOPTS|BASHOPTS"
    r"|LD_.*|GCONV_PATH|LOCPATH|NLSPATH|HOSTALIASES|MALLOC_.*|GLIBC_TUNABLES"
    r"|PYTHON(PATH|HOME|STARTUP|INSPECT|USERBASE|WARNINGS|BREAKPOINT|PLATLIBDIR|EXECUTABLE|PYCACHEPREFIX)"
    r"|PERL(5LIB|LIB|5OPT|5DB)|RUBY(LIB|OPT)|NODE_(OPTIONS|PATH)|JAVA_TOOL_OPTIONS|_?JAVA_OPTIONS"
    r"|JDK_JAVA_OPTIONS|GIT_.*|TRUEUP_.*"
    # docker runs the plugins in its configuration's directory, `compose` among them, and the rest names
    # another daemon, project or file than the one in the target.
    r"|DOCKER_.*|BUILDX_.*|XDG_.*"
    r"|COMPOSE_(FILE|PATH_SEPARATOR|PROJECT_NAME|PROJECT_DIRECTORY|ENV_FILES|DISABLE_ENV_FILE|REMOVE_ORPHANS)"
    # Files with code or programs to start that make, OpenSSL, ssh, kubectl, pagers and others read.
    r"|MAKEFLAGS|MAKEFILES|GNUMAKEFLAGS|OPENSSL_(CONF|ENGINES|MODULES)|SSH_ASKPASS.*|KUBECONFIG"
    r"|(SYSTEMD_|MAN)?PAGER|EDITOR|VISUAL|BROWSER|LESSOPEN|LESSCLOSE|GEM_(HOME|PATH)|BUNDLE_.*"
    r"|LUA_(PATH|CPATH|INIT).*|PHPRC|PHP_INI_SCAN_DIR|CLASSPATH|DOTNET_STARTUP_HOOKS|ANSIBLE_.*"
    r"|[Nn][Pp][Mm]_[Cc][Oo][Nn][Ff][Ii][Gg]_.*"
)


async def run_allowed(command: Command, *, rules: AgentRules, inside: str = "") -> TaskReport:
    """Runs the command and reports how it ended. Raises TrueupError for what this host does not do.

    It runs in the target, or in the directory `inside` it: that of the current release.
    """
    _check(command, rules)
    where = f"{command.target_path}/{inside}" if inside else command.target_path
    target = await trio.to_thread.run_sync(lambda: open_target(where, rules.roots, create=False))
    if target is None:
        raise TaskFailed(
            "TargetMissing",
            f"{command.target_path!r} is not there",
            hint="its project has to be synced first",
        )
    seconds = min(command.timeout, rules.command_timeout)
    try:
        await target.lock(shared=False)
        with quiet(seconds + 60):
            result = await run_command(
                command.command,
                rules.commands[command.command],
                directory_fd=target.fd,
                environment={
                    **command.environment,
                    **await command_environment(command.project, command.target_path),
                },
                seconds=seconds,
                hide=lambda text: _hide(text, command),
            )
    finally:
        target.close()
    reason, message = "", ""
    if result.timed_out:
        reason = "Timeout"
        own = ", this host's limits.command_timeout," if rules.command_timeout < command.timeout else ""
        message = f"the command {command.command!r} was stopped after {seconds:g} s{own} and failed"
    elif result.exit_code != 0:
        reason = "CommandFailed"
        message = f"the command {command.command!r} ended with exit code {result.exit_code}"
    if reason:
        message += f" ({last_lines(result.output) or 'it printed nothing'})"
    return TaskReport(
        task=command.id,
        state="FAILED" if reason else "SUCCESS",
        reason=reason,
        message=message[:2000],
        after=(result,),
    )


def _check(command: Command, rules: AgentRules) -> None:
    if not command.project.isprintable() or len(command.project) > 255:
        raise RemoteProtocolError("the name of the command's project is no name")
    if not 0 < command.timeout < 1e9:
        raise RemoteProtocolError("the command's timeout is no number of seconds")
    if len(command.environment) > MAX_VARIABLES:
        raise RemoteProtocolError(f"a command with more than {MAX_VARIABLES} variables")
    check_target(command.target_path, rules.roots)
    check_commands([command.command], rules.commands)
    for name, value in command.environment.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise RemoteProtocolError("a variable of the command has a name or a value that none can have")
    refused = sorted(name for name in command.environment if _REFUSED.fullmatch(name))
    if refused:
        raise TaskFailed(
            "VariableNotAllowed",
            f"no agent passes {', '.join(refused)} to a command: it could change which program runs",
            hint="give it another name, or set it in the command itself",
        )


def _hide(text: str, command: Command) -> str:
    """`text` with `***` for each secret value, and for each line of one that has several, encoded or not."""
    pieces: set[str] = set()
    for name in command.secret:
        value = command.environment.get(name, "")
        pieces.update([value, *(line.strip() for line in value.splitlines())])
    return hide(text, pieces)
