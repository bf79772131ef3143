"""The tour of docs/secrets.md, pasted into a shell line by line, against the Infisical double."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from tests.canaries import canary, may_hold
from tests.contracts.infisical_double import InfisicalDouble
from tests.test_docs import ROOT, fenced
from tests.world import make_world

TOUR = ROOT / "docs/secrets.md"


def steps() -> list[str]:
    """The blocks to paste, in order, without the one that has the reader's own names."""
    who, *blocks = fenced(TOUR, "sh")
    assert "INFISICAL_CLIENT_SECRET" in who
    return blocks


async def test_the_tour_works_as_pasted(tmp_path: Path) -> None:
    service, spec, first, rotation = steps()
    async with make_world(tmp_path) as (world, _):
        may_hold(tmp_path / "trueup-tour/state/master.key")
        command = tmp_path / "bin/trueup"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m reconciler "$@"\n')
        command.chmod(0o755)
        with InfisicalDouble() as double:
            place = (double.project, "prod", "/")
            double.secrets[place] = {"DATABASE_URL": canary("tour-url"), "API_KEY": canary("tour-key")}
            environment = {
                "HOME": str(tmp_path),
                "PATH": f"{command.parent}:{world.environment['PATH']}",
                "INFISICAL_HOST": double.url,
                "INFISICAL_PROJECT": double.project,
                "INFISICAL_CLIENT_ID": double.client_id,
                "INFISICAL_CLIENT_SECRET": double.client_secret,
            }

            async def paste(*blocks: str) -> str:
                script = "\n".join(("set -eu", "cd ~/trueup-tour 2>/dev/null || true", *blocks))
                ran = await world.run(["-c", script], python="/bin/bash", **environment)
                assert ran.exit_code == 0, ran.stdout + ran.stderr
                assert "tour-url" not in ran.stdout + ran.stderr
                return ran.stdout

            exports = re.findall(r"^export .*$", first, re.MULTILINE)
            output = await paste(service, spec, first)
            assert "2 steps" in output
            log = tmp_path / "trueup-tour/up.log"
            assert sorted(log.read_text().splitlines()) == ["api v1.0.0 is up", "mailer v1.0.0 is up"]
            assert "nothing to do" in await paste(*exports, "trueup reconcile")
            double.secrets[place]["DATABASE_URL"] = canary("tour-url-rotated")
            output = await paste(*exports, rotation)
            assert "secret DATABASE_URL" in output
            assert log.read_text().splitlines()[2:] == ["api v1.0.0 is up"]
