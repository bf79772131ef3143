"""The agent's systemd unit for one host. Pure."""

from typing import Final

from reconciler.install.plan import DEFAULT_STATE_DIR, Wanted

TEMPLATE: Final = "trueup-agent.service"
"""The unit that it is made of, beside this file; the same as in examples/systemd."""

_HOMES: Final = ("/home/", "/root/", "/run/user/")


def render_unit(template: str, wanted: Wanted) -> str:
    """The unit for this host, made of `examples/systemd/trueup-agent.service`."""
    written = list(wanted.roots)
    lines = ["# Written by `trueup node install`, and anew by the next one: for changes, `systemctl edit`."]
    for line in template.splitlines():
        key = line.partition("=")[0]
        if line.startswith("# Yours") or (line.startswith("#") and len(lines) == 1):
            continue
        if key == "ExecStart":
            line = f"ExecStart={wanted.program} run --config {wanted.config}"
        elif key in ("StateDirectory", "StateDirectoryMode") and wanted.state_dir != DEFAULT_STATE_DIR:
            continue
        elif key == "ReadWritePaths":
            written += [wanted.state_dir] if wanted.state_dir != DEFAULT_STATE_DIR else []
            if not written:
                continue
            line = f"ReadWritePaths={' '.join(written)}"
        elif key == "ProtectHome" and any(f"{path}/".startswith(_HOMES) for path in _places(wanted)):
            line = "ProtectHome=read-only"
        elif key == "CapabilityBoundingSet" and wanted.user:
            line = f"User={wanted.user}\nCapabilityBoundingSet="
        lines.append(line)
    return "\n".join(lines) + "\n"


def _places(wanted: Wanted) -> tuple[str, ...]:
    return (*wanted.roots, wanted.prefix, wanted.config, wanted.state_dir)
