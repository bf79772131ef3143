"""What a change of secrets touches: steps of the plan, by the key in its source and the name it has there."""

from typing import Any

from reconciler.desired import make_desired
from reconciler.observation import Absent, Observation, Present
from reconciler.plan import make_plan
from reconciler.secret_uses import uses_of
from reconciler.secrets_diff_report import diff_document, has_changes
from tests.reconciler.facts import facts, secret

WEB, SITE = "services/staging/web", "projects/branch/site/web-1/srv+site"
TEXT = """\
services:
  web:
    repository: app
    secrets: [{source: local, keys: [DB_URL], rename: {DB_URL: PG}}]
    deploy: {kind: invoke, task: t}
    environments: [staging]
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      nodes: [{node_id: web-1, target_path: /srv/site}]
      files: [{path: .env, format: dotenv, secrets: [local]}]
"""
OLD = {"local": {"DB_URL": "0a", "GONE": "0b"}}


def diff(values: dict[str, str], *, absent: bool = False, **options: Any) -> dict[str, Any]:
    """Of a world that was brought to DB_URL and GONE, and whose source now has these values."""

    def known(named: dict[str, str]) -> Any:
        all = {key: secret(key, value) for key, value in named.items()}
        return facts(TEXT, secrets={("local", "staging"): all, ("local", ""): all})

    before = make_desired(known({"DB_URL": "old", "GONE": "x"}))
    now = known(values)
    desired = make_desired(now)
    found: dict[str, Observation] = {
        one.id: Absent("the last attempt failed") if absent else Present(str(one.hash), one.inputs)
        for one in before.resources
    }
    plan = make_plan(desired, found, recorded=())
    marks = {"local": {key: "0a" if value == "old" else "ff" for key, value in values.items()}}
    given: dict[str, Any] = {"marks": marks, "recorded": OLD, "failed": [], **options}
    return diff_document(["local"], plan=plan, desired=desired, uses=uses_of(now.spec), **given)


def touched(document: dict[str, Any]) -> dict[str, list[tuple[str, str, str]]]:
    return {
        step["resource"]: [(each["source"], each["key"], each["name"]) for each in step["secrets"]]
        for step in document["steps"]
    }


def test_each_key_is_told_with_what_it_touches() -> None:
    document = diff({"DB_URL": "new", "GONE": "x"}, recorded={"local": {"DB_URL": "0a", "GONE": "ff"}})
    assert document["sources"] == [
        {"name": "local", "compared": True, "appeared": [], "changed": ["DB_URL"], "vanished": []}
    ]
    assert touched(document) == {
        WEB: [("local", "DB_URL", "PG")],
        SITE: [("local", "DB_URL", ".env DB_URL")],
    }


def test_a_key_that_vanished_touches_what_had_it() -> None:
    document = diff({"DB_URL": "old"})
    assert document["sources"][0]["vanished"] == ["GONE"]
    assert touched(document) == {SITE: [("local", "GONE", ".env GONE")]}


def test_what_failed_before_is_touched_by_what_changed_since() -> None:
    document = diff({"DB_URL": "new", "GONE": "x"}, absent=True)
    assert {step["reason"] for step in document["steps"]} == {"the last attempt failed"}
    assert touched(document)[WEB] == [("local", "DB_URL", "PG")]


def test_a_source_that_did_not_answer_has_no_changes() -> None:
    document = diff({"DB_URL": "old", "GONE": "x"}, marks={}, failed=["local"])
    assert document["sources"][0]["compared"] is False
    assert not has_changes(document)


def test_only_one_source() -> None:
    document = diff({"DB_URL": "new", "GONE": "x"}, only="other")
    assert [source["name"] for source in document["sources"]] == ["other"]
    assert document["steps"] == []


def test_a_key_that_vanished_breaks_what_asks_for_it_by_name() -> None:
    document = diff({"GONE": "x"})
    assert document["sources"][0]["vanished"] == ["DB_URL"]
    (broken,) = document["broken"]
    assert (broken["resource"], broken["reason"]) == (WEB, "SecretNotFound")
    assert "DB_URL" in broken["message"]
    assert has_changes(document)
    assert diff({"GONE": "x"}, only="other")["broken"] == []
