"""The messages for each channel: who gets what, how long they are, and that no secret is in them."""

from datetime import UTC, datetime

import pytest

from reconciler.notifications.news import Kind, News
from reconciler.notifications.wording import MAX_BODY, MAX_TITLE, Origin, drafts, wants
from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret
from reconciler.spec.model import EnvCredential, Notification, SecretCredential
from tests.canaries import canary

TRACE = "0af7651916cd43dd8448eb211c80319c"
ORIGIN = Origin(datetime(2026, 3, 1, 12, 0, 0, 1, UTC), "0123456789abcdef", TRACE)
OPS, DEVS = EnvCredential(name="OPS_URL"), SecretCredential(source="local", key="DEVS_URL")
WEB = News("failed", "services/prod/web", "DeployFailed", "ended with 7", f"v1.2.0@sha1:{'ab' * 20}")


def bodies(found: list[News], *channels: Notification, mask: object = str) -> dict[str, str]:
    made = drafts(found, channels, ORIGIN, mask)  # type: ignore[arg-type]
    return {type(each.channel).__name__: each.body for each in made}


def test_a_message() -> None:
    recovered = News("recovered", "nodes/web-1", "Paired", "")
    [draft] = drafts([recovered, WEB], [Notification(url=OPS)], ORIGIN, str)
    assert (draft.channel, draft.severity, draft.title) == (OPS, "failure", "trueup: 1 failed, 1 recovered")
    assert draft.body.splitlines() == [
        "failed: services/prod/web at v1.2.0 abababababab: DeployFailed: ended with 7",
        "recovered: nodes/web-1: Paired",
        "at 2026-03-01 12:00:00 UTC, spec 0123456789ab, trace 0af7651916cd43dd8448eb211c80319c",
    ]


@pytest.mark.parametrize(
    ("on", "kind", "was", "wanted"),
    [
        (("failed",), "failed", "failed", True),
        (("failed",), "degraded", "failed", False),
        (("failed",), "recovered", "failed", False),
        (("failed", "recovered"), "recovered", "failed", True),
        (("failed", "recovered"), "recovered", "degraded", False),
        (("degraded", "recovered"), "recovered", "degraded", True),
        (("recovered",), "recovered", "failed", True),
        (("awaiting_approval",), "awaiting_approval", "failed", True),
    ],
)
def test_who_is_told(on: tuple[str, ...], kind: str, was: str, wanted: bool) -> None:
    news = News(kind, "services/prod/web", "R", "", was=was)  # type: ignore[arg-type]
    assert wants(on, news) is wanted


def test_each_channel_gets_what_it_asks_for_in_one_message() -> None:
    waits = News("awaiting_approval", "environments/prod", "AwaitingApproval", "v2 waits")
    found = [WEB, waits]
    ops, devs = Notification(url=OPS, on=("failed",)), Notification(url=DEVS, on=("awaiting_approval",))
    both = bodies(found, ops, devs)
    assert "web" in both["EnvCredential"] and "v2" not in both["EnvCredential"]
    assert "v2" in both["SecretCredential"] and "web" not in both["SecretCredential"]
    [once] = drafts(found, [ops, ops], ORIGIN, str)
    assert once.body.count("services/prod/web") == 1
    assert drafts([waits], [Notification(url=OPS)], ORIGIN, str) == []


def test_severities() -> None:
    kinds: dict[Kind, str] = {
        "failed": "failure",
        "degraded": "warning",
        "awaiting_approval": "warning",
        "recovered": "success",
    }
    for kind, severity in kinds.items():
        [draft] = drafts([News(kind, "x", "R", "")], [Notification(url=OPS, on=(kind,))], ORIGIN, str)
        assert draft.severity == severity


@pytest.mark.parametrize("length", [1, 60, 5000])
@pytest.mark.parametrize("count", [1, 5, 400])
def test_a_message_has_a_bound_and_says_what_it_leaves_out(count: int, length: int) -> None:
    revision = "v1@sha1:" + "a" * 40
    found = [News("failed", f"services/prod/{n:03}", "R", "x" * length, revision) for n in range(count)]
    [draft] = drafts(found, [Notification(url=OPS)], ORIGIN, str)
    lines = draft.body.splitlines()
    told = [line for line in lines if line.startswith("failed: ")]
    assert len(draft.body) <= MAX_BODY and len(draft.title) <= MAX_TITLE
    assert told and lines[-1].startswith("at 2026")
    if len(told) < count:
        more = count - len(told)
        assert lines[-2] == f"and {more} more: {more} failed; `trueup get` shows all"


def test_secrets_are_masked_and_lines_are_lines() -> None:
    secret = canary("in-a-message")
    bad = News("failed", "services/prod/web", "DeployFailed", f"token\n{secret}\x1b[31m" + "y" * 300)
    mask = Masker([Secret(secret)]).mask
    body = bodies([bad], Notification(url=OPS), mask=mask)["EnvCredential"]
    assert body.splitlines()[0].startswith("failed: services/prod/web: DeployFailed: token *** [31my")
    assert secret[:12] not in body
