"""What operators decide with a command, and what the next pass makes of it."""

from pathlib import Path

from tests.releasing import Life, begin_life

WEB = ["v0.1.0 0 one"]
"""What one deploy of the first release writes down."""


async def released(life: Life) -> None:
    """Both environments run the first commit."""
    await life.world.reconcile()
    await life.promote()
    await life.world.reconcile()
    assert life.runs("production")[0] == "v0.2.0"


async def test_a_suspended_service_is_left_alone_until_it_is_resumed(tmp_path: Path) -> None:
    async with begin_life(tmp_path) as life:
        world = life.world
        await released(life)
        await world.trueup("suspend", "services/web", "--reason", "an exam")
        life.change("1")
        life.level = "two"
        life.merge_spec()
        await world.reconcile()
        await world.reconcile("--force", "services/staging/web")
        assert life.deploys("staging") == WEB
        found = life.service("staging")
        assert (found["reason"], "an exam" in found["message"]) == ("Suspended", True)
        # One environment goes on, the other one does not.
        await world.trueup("resume", "services/staging/web")
        await world.reconcile()
        assert life.deploys("staging") == [*WEB, "v0.2.1 1 two"]
        await life.promote()
        await world.reconcile()
        assert life.deploys("production") == ["v0.2.0 0 one"]
        await world.trueup("resume", "services/web")
        await world.reconcile()
        assert life.deploys("production")[1:] == [f"{life.runs('production')[0]} 1 two"]
        assert life.runs("production")[3] == "succeeded"


async def test_nothing_at_all_happens_in_a_freeze(tmp_path: Path) -> None:
    async with begin_life(tmp_path) as life:
        world = life.world
        await released(life)
        await world.trueup("freeze", "--reason", "an incident")
        tags = life.tags()
        life.change("1")
        await world.reconcile()
        assert life.tags() == tags
        assert (life.deploys("staging"), life.deploys("production")) == (WEB, ["v0.2.0 0 one"])
        for name in ("staging", "production"):
            status, reason, message = life.told(name)
            assert (status, reason) == ("False", "Frozen")
            assert "an incident" in message
        before = world.status_commits()
        await world.reconcile()
        assert world.status_commits() == before
        await world.reconcile("--force", "services/production/web")
        assert (life.deploys("production"), life.tags()) == (["v0.2.0 0 one"], tags)
        await world.trueup("unfreeze")
        await world.reconcile()
        assert life.deploys("staging") == [*WEB, "v0.2.1 1 one"]
        assert life.told("staging")[0] == life.told("production")[0] == "True"


async def test_a_held_environment_stays_at_its_release(tmp_path: Path) -> None:
    async with begin_life(tmp_path) as life:
        world = life.world
        await world.reconcile()
        await world.trueup("hold", "staging", "--reason", "a demo")
        for version in ("1", "2"):
            commit = life.change(version)
            await world.reconcile()
        assert list(life.tags()) == ["v0.1.0"]
        [waiting] = life.environment("staging")["waiting"]
        assert (waiting["reason"], waiting["commit"]) == ("HoldActive", commit)
        assert "a demo" in life.told("staging")[2]
        # What runs is still looked after: the spec's settings are not a release.
        life.level = "two"
        life.merge_spec()
        await world.reconcile()
        assert life.deploys("staging")[1:] == ["v0.1.0 0 two"]
        await world.trueup("unhold", "staging")
        await world.reconcile()
        assert life.tags()["v0.1.1"] == commit
        assert life.deploys("staging")[2:] == ["v0.1.1 2 two"]
        assert "waiting" not in life.environment("staging")


async def test_an_override_opens_closed_windows(tmp_path: Path) -> None:
    async with begin_life(tmp_path) as life:
        world = life.world
        await released(life)
        life.rules = 'spec_from: head, windows: [{deny: "daily 00:00-24:00"}]'
        life.merge_spec()
        commit = life.change("1")
        life.level = "two"
        life.merge_spec()
        await world.reconcile()
        await life.promote()
        await world.reconcile()
        assert life.deploys("staging")[1:] == ["v0.2.1 1 two"]
        assert life.deploys("production") == ["v0.2.0 0 one"]
        [waiting] = life.environment("production")["waiting"]
        assert (waiting["reason"], sorted(life.tags())) == ("WindowClosed", ["v0.1.0", "v0.2.0", "v0.2.1"])
        await world.trueup("override", "production", "--for", "1h", "--reason", "a bug")
        await world.reconcile()
        assert life.runs("production") == ("v0.3.0", commit, "promotion", "succeeded")
        assert life.deploys("production")[1:] == ["v0.3.0 1 two"]
        # A rollback needs no open window.
        life.rules = life.rules.replace("windows", "on_failure: rollback, windows")
        life.merge_spec()
        await world.trueup("rollback", "production")
        await world.reconcile()
        assert life.deploys("production")[2:] == ["v0.2.0 0 two"]


async def test_an_approval_lets_one_commit_through_once(tmp_path: Path) -> None:
    async with begin_life(tmp_path) as life:
        world = life.world
        life.policy = ", approval: manual"
        life.merge_spec()
        await world.reconcile()
        await life.promote()
        await world.reconcile()
        assert list(life.tags()) == ["v0.1.0"]
        [waiting] = life.environment("production")["waiting"]
        assert (waiting["reason"], waiting["tag"]) == ("AwaitingApproval", "v0.1.0")
        await world.trueup("approve", "production", "--reason", "seen")
        await world.reconcile()
        assert life.runs("production")[:1] == ("v0.2.0",)
        assert life.trailers("v0.2.0")["Decision"] == "2"
        commit = life.change("1")
        await world.reconcile()
        await life.promote()
        await world.reconcile()
        assert (life.runs("production")[0], life.told("production")[1]) == ("v0.2.0", "AwaitingApproval")
        await world.trueup("approve", "production")
        await world.reconcile()
        assert life.runs("production") == ("v0.3.0", commit, "promotion", "succeeded")
        await world.trueup("rollback", "production")  # needs none
        await world.reconcile()
        assert life.runs("production")[0] == "v0.2.0"
        # The approval of the same commit was used up.
        await life.promote()
        await world.reconcile()
        assert (life.runs("production")[0], life.told("production")[1]) == ("v0.2.0", "AwaitingApproval")
