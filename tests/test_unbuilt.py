"""Parts of the spec that are valid and never acted on: each is reported as such, and never as a success."""

from pathlib import Path

from tests.bad_world import make_case


async def test_a_manual_service_is_reported_and_never_applied(tmp_path: Path) -> None:
    """It is built: doing nothing is what it is for."""
    async with make_case(tmp_path) as case:
        case.commit(case.good.replace("{kind: invoke, task: deploy}", "{kind: manual}", 1))
        await case.reconcile(expect=0)
        assert case.deployed() == {"api": ["v1.0.0"]}
        assert case.ready("services/staging/database")[:2] == ("False", "Manual")
