"""The API of a running primary over the network: what its reading routes say, to whom, and as it happens."""

import hashlib
import hmac
import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.api_world import ApiWorld, api_world
from tests.canaries import canary
from tests.world import PATIENCE, Ran

ROOT = Path(__file__).parent.parent


async def test_the_api_of_a_running_primary(tmp_path: Path) -> None:
    async with api_world(tmp_path) as api:
        await check_environments(api)
        await check_services(api)
        await check_nodes_and_projects(api)
        await check_tasks(api)
        await check_plan(api)
        await check_who_may(api)
        await check_commands(api)
        await check_events(api)
        await check_read_again(api)
        await check_description(api, tmp_path / "schemathesis.toml")
        assert await api.primary.end() == 0


async def check_environments(api: ApiWorld) -> None:
    ready = await api.get("/health/ready")
    assert (ready["status"], ready["live"], ready["ready"]) == ("ok", True, True)
    listed = await api.get("/api/environments")
    production, staging = listed["environments"]
    assert (production["name"], production["promotedFrom"], production["approval"]) == (
        "production",
        "staging",
        "manual",
    )
    assert (production["ready"]["reason"], production["units"]) == ("AwaitingRelease", [])
    assert production["windows"]["open"] and production["windows"]["windows"][0]["timezone"] == "UTC"
    [unit] = staging["units"]
    assert (unit["unit"], unit["release"]["tag"], unit["release"]["outcome"]) == (
        "app",
        "v1.0.0",
        "succeeded",
    )
    first = await api.get("/api/environments?limit=1")
    assert (first["environments"], first["next"]) == ([production | first_windows(first)], "production")
    second = await api.get("/api/environments?limit=1&after=production")
    assert ([each["name"] for each in second["environments"]], second["next"]) == (["staging"], None)
    assert (await api.get("/api/environments/staging"))["units"] == staging["units"]
    [release] = (await api.get("/api/history"))["releases"]
    assert (release["environment"], release["release"]["tag"], release["current"]) == (
        "staging",
        "v1.0.0",
        True,
    )
    assert (await api.get("/api/history/production"))["releases"] == []
    for path in ("/api/environments/none", "/api/history/none"):
        answered = await api.ask(path)
        assert (answered.status_code, answered.json()["reason"]) == (404, "NotFound")


def first_windows(listed: Any) -> dict[str, Any]:
    """When they open next is the moment of the request where they are open."""
    return {"windows": listed["environments"][0]["windows"]}


async def check_services(api: ApiWorld) -> None:
    listed = (await api.get("/api/services"))["services"]
    assert [each["id"] for each in listed] == ["services/production/api", "services/staging/api"]
    [one] = (await api.get("/api/services?environment=staging"))["services"]
    detail = await api.get("/api/services/staging/api")
    assert one == {key: detail[key] for key in one}
    assert detail["configHash"].startswith("v1:")
    assert detail["appliedRevision"].startswith("v1.0.0@sha1:")
    assert (detail["lastChange"]["outcome"], detail["planned"]["reason"]) == ("succeeded", "not applied yet")
    [step] = detail["steps"]
    assert (step["action"], step["reason"], step["outcome"]) == ("deploy", "not applied yet", "succeeded")
    assert "DB_PASSWORD" in detail["inputs"]
    assert listed[0]["ready"]["reason"] == "AwaitingRelease"
    assert (await api.ask("/api/services/staging/none")).status_code == 404


async def check_nodes_and_projects(api: ApiWorld) -> None:
    [node] = (await api.get("/api/sync/nodes"))["nodes"]
    assert node == await api.get("/api/sync/nodes/web-1")
    assert (node["name"], node["labels"], node["health"]) == ("web-1", {"group": "web"}, "healthy")
    assert (node["connected"], node["protocol"] > 0, node["agentVersion"] != "") == (True, True, True)
    assert node["pairing"]["paired"] and node["pairing"]["pinned"]
    assert node["lastSync"]["change"]["outcome"] == "succeeded"
    [project] = (await api.get("/api/sync/projects?node=web-1"))["projects"]
    assert (await api.get("/api/sync/projects?node=web-2"))["projects"] == []
    detail = await api.get("/api/sync/projects/site")
    assert project == {key: detail[key] for key in project}
    assert (project["title"], project["inOrder"]) == ("The site", 1)
    [target] = project["targets"]
    assert (target["node"], target["targetPath"], target["counts"]["filesWritten"]) == (
        "web-1",
        str(api.host.srv / "site"),
        2,
    )
    assert (detail["sync"]["on_drift"], detail["sync"]["retry"]["attempts"]) == ("heal", 5)
    [file] = detail["files"]
    assert (file["path"], file["mode"], file["sources"]) == (".env", "0600", ["local"])
    assert (await api.ask("/api/sync/projects/none")).status_code == 404


async def check_tasks(api: ApiWorld) -> None:
    [task] = (await api.get("/api/sync/tasks"))["tasks"]
    assert (task["project"], task["node"], task["state"], task["progress"]) == (
        "site",
        "web-1",
        "SUCCESS",
        None,
    )
    [attempt] = task["attempts"]
    assert attempt["details"]["files_written"] == 2
    for query, found in (
        ("node=web-1&project=site&state=SUCCESS", 1),
        ("node=web-2", 0),
        ("project=x", 0),
        ("state=FAILED", 0),
        (f"before={task['id']}", 0),
    ):
        assert len((await api.get(f"/api/sync/tasks?{query}"))["tasks"]) == found, query
    assert await api.get(f"/api/sync/tasks/{task['id']}") == task
    [log] = (await api.get(f"/api/sync/tasks/{task['id']}/logs"))["attempts"]
    assert "the mark was made" in log["log"]
    for path in ("/api/sync/tasks/none", "/api/sync/tasks/none/logs"):
        assert (await api.ask(path)).status_code == 404
    assert (await api.ask("/api/sync/tasks?state=OTHER")).status_code == 400


async def check_plan(api: ApiWorld) -> None:
    last = await api.get("/api/plan")
    assert not last["fresh"]
    assert "sync" in {step["action"] for step in last["steps"]}  # the deploy was made by it, or before it
    commits = api.world.status_commits()
    fresh = await api.get("/api/plan?fresh=true")
    assert (fresh["fresh"], fresh["steps"]) == (True, [])
    assert fresh["specRevision"] == last["specRevision"]
    assert api.world.status_commits() == commits


async def check_who_may(api: ApiWorld) -> None:
    guess = "trueup_" + "0" * 64
    for token, method, status in (
        ("", "GET", 401), (guess, "GET", 401), (api.expired, "GET", 401), (api.revoked, "GET", 401),
        (api.reader, "POST", 403), (api.operator, "POST", 200),
    ):  # fmt: skip
        path = "/api/services" if method == "GET" else "/api/secrets/cache/clear"
        assert (await api.ask(path, token, method)).status_code == status
    for host, status in (("trueup.example", 200), ("evil.example", 421), ("127.0.0.1", 200)):
        assert (await api.ask("/api/services", headers={"Host": host})).status_code == status
        assert (await api.ask("/health", "", headers={"Host": host})).status_code == 200
    # The value of a secret is nowhere.
    for path in ("/api/secrets", "/api/services/staging/api", "/api/sync/projects/site", "/api/plan"):
        assert canary("api-db-password") not in (await api.ask(path)).text
    locally = await api.primary.ask_locally("GET", "/api/services", headers={"Host": "whatever"})
    assert locally.status_code == 200


async def check_commands(api: ApiWorld) -> None:
    """`trueup`'s own commands reach it from elsewhere with a token."""

    async def ask(token: str, *command: str, expect: int | None = 0) -> Ran:
        return await api.world.trueup(
            *command,
            expect=expect,
            TRUEUP_SERVER=api.primary.http,
            TRUEUP_STATE_DIR=str(api.world.root / "elsewhere"),
            TRUEUP_TOKEN=token,
        )

    listed = await ask(api.reader, "secrets", "list", "-o", "json")
    assert [each["name"] for each in listed.document["sources"]] == ["local"]
    synced = await ask(api.operator, "secrets", "sync", "local")
    assert "Secret local synced successfully" in synced.stdout + synced.stderr
    for token, told in ((api.reader, "needs a token with the role operate"), (api.expired, "is not known")):
        refused = await ask(token, "secrets", "sync", "local", expect=None)
        assert refused.exit_code != 0 and told in refused.stdout + refused.stderr
    tokens = await api.world.trueup("token", "list", "-o", "json")
    assert {(each["name"], each["role"], each["expired"]) for each in tokens.document["tokens"]} == {
        ("operator", "operate", False),
        ("reader", "read", False),
        ("expired", "operate", True),
    }


async def check_read_again(api: ApiWorld) -> None:
    """SIGHUP: secrets are those that their files hold now."""
    (api.world.root / "webhook-secret").write_text(canary("next-webhook-secret"))
    api.primary.process.send_signal(signal.SIGHUP)
    await api.primary.said("files with secrets were read again")
    for name, status in (("api-webhook-secret", 401), ("next-webhook-secret", 202)):
        digest = hmac.new(canary(name).encode(), b"{}", hashlib.sha256).hexdigest()
        headers = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": "ping"}
        answered = await api.primary.ask("POST", "/webhook", headers=headers, content=b"{}")
        assert answered.status_code == status


async def check_events(api: ApiWorld) -> None:
    page = await api.get("/api/events?limit=2")
    assert len(page["events"]) == 2 and page["next"] == page["events"][1]["id"]
    older = await api.get(f"/api/events?before={page['next']}")
    everything = [*page["events"], *older["events"]]
    assert older["next"] is None and page["newest"] == everything[0]["id"]
    [paired] = (await api.get("/api/events?kind=paired&resource=nodes"))["events"]
    assert paired == everything[-1]
    following = await api.get(f"/api/events?after={paired['id']}&limit=1")
    assert following["events"] == [everything[-2]]

    # As they happen: what was missed since one that was seen, then what comes.
    stream = {"Accept": "text/event-stream", "Last-Event-ID": str(paired["id"])}
    bearer = {"Authorization": f"Bearer {api.operator}"}
    async with (
        httpx.AsyncClient(base_url=api.primary.http, headers=bearer, timeout=PATIENCE) as client,
        client.stream("GET", "/api/events", headers=stream) as answer,
        aclosing(sent_events(answer)) as events,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        missed = [await anext(events) for _ in everything[:-1]]
        assert missed == everything[-2::-1]
        text = api.world.spec.read("trueup.yaml").decode()
        api.world.commit_spec(text.replace("environments: [staging, production]", "environments: [staging]"))
        asked = await api.ask("/api/reconcile", api.operator, "POST")
        assert asked.status_code == 202
        fresh = await anext(events)
        assert fresh["id"] == page["newest"] + 1
        # A token that is taken back ends it.
        lines = api.tokens_file.read_text().splitlines(keepends=True)
        api.tokens_file.write_text("".join(line for line in lines if not line.startswith("operator ")))
        asked = await api.primary.ask_locally("POST", "/api/reconcile")
        assert asked.status_code == 202
        async for _ in events:
            pass
    api.tokens_file.write_text("".join(lines))
    wrong = await api.ask("/api/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "x"})
    assert wrong.status_code == 400


async def sent_events(answer: httpx.Response) -> AsyncGenerator[Any]:
    """The data of each event; it has the id and the kind that stand before it."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line and not line.startswith(":"):
            key, _, value = line.partition(": ")
            fields[key] = value
        elif "data" in fields:
            event = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(event["id"]), event["kind"])
            yield event
            fields = {}


def schemathesis_config(api: ApiWorld, path: Path) -> Path:
    path.write_text(
        f'base-url = "{api.primary.http}"\nhooks = "tests.schemathesis_hooks"\n'
        "[checks.positive_data_acceptance]\n"
        # What has the right form may still be wrong for the spec.
        'expected-statuses = ["2xx", 401, 403, 404, 409, 422, 429, 502, 503]\n'
    )
    return path


async def check_description(api: ApiWorld, work: Path) -> None:
    """What is served is what `/openapi.json` says, whatever is sent: judged by schemathesis."""
    config = schemathesis_config(api, work)
    command = ["--config-file", str(config), "run", f"{api.primary.http}/openapi.json"]
    command += ["--phases", "examples,coverage,fuzzing", "--checks", "all", "--max-examples", "8"]
    command += ["--generation-deterministic", "--no-color", "--continue-on-failure"]
    with trio.fail_after(4 * PATIENCE):
        done = await trio.run_process(
            [str(Path(sys.executable).with_name("schemathesis")), *command],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            cwd=work.parent,
            env={**api.world.environment, "PYTHONPATH": str(ROOT), "API_TEST_TOKEN": api.operator},
        )
    assert done.returncode == 0, done.stdout.decode()
    assert not [line for line in api.primary.lines if "no answer to" in str(line.get("event"))]
