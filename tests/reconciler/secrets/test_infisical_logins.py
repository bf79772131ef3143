"""How an Infisical source logs in: one token for many, renewed in time, and no login that was refused."""

import pytest
from trio.testing import MockClock

from reconciler.errors import SettingsError
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.source import SourceContext
from reconciler.spec.model import EnvCredential
from tests.canaries import canary
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import context_for, fetched, place, source_of


async def test_a_token_is_used_again_and_by_all_sources_of_the_identity(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.secrets[place(double, "/x")] = {"B": "2"}
    context = context_for(double)
    first, second = source_of(double, context), source_of(double, context, secret_path="/x")
    assert [await fetched(first), await fetched(first), await fetched(second)] == [
        {"A": "1"},
        {"A": "1"},
        {"B": "2"},
    ]
    assert (double.calls("login"), double.calls("list")) == (1, 3)


async def test_a_token_is_renewed_after_two_thirds_of_its_life(
    double: InfisicalDouble, mock_clock: MockClock
) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.token_lifetime = 300
    source = source_of(double)
    await source.fetch("production")
    mock_clock.jump(199)
    await source.fetch("production")
    assert (double.calls("login"), double.calls("renew")) == (1, 0)
    mock_clock.jump(2)
    await source.fetch("production")
    assert (double.calls("login"), double.calls("renew")) == (1, 1)
    mock_clock.jump(199)
    await source.fetch("production")
    assert (double.calls("login"), double.calls("renew")) == (1, 1), "the renewed token has its own life"


async def test_a_renewal_that_is_refused_becomes_a_login(
    double: InfisicalDouble, mock_clock: MockClock
) -> None:
    double.secrets[place(double)] = {"A": "1"}
    source = source_of(double)
    await source.fetch("production")
    double.revoke_tokens()
    mock_clock.jump(7000)
    assert await fetched(source) == {"A": "1"}
    assert (double.calls("login"), double.calls("renew")) == (2, 1)


async def test_a_renewal_in_an_outage_leaves_the_token_in_use(
    double: InfisicalDouble, mock_clock: MockClock
) -> None:
    double.secrets[place(double)] = {"A": "1"}
    source = source_of(double)
    await source.fetch("production")
    mock_clock.jump(5000)
    double.fail_with(faults.server_error(), on="renew")
    assert await fetched(source) == {"A": "1"}
    assert double.calls("login") == 1


@pytest.mark.parametrize("end", ["expire", "revoke"])
async def test_a_dead_token_leads_to_one_new_login(double: InfisicalDouble, end: str) -> None:
    double.secrets[place(double)] = {"A": "1"}
    source = source_of(double)
    await source.fetch("production")
    double.expire_tokens() if end == "expire" else double.revoke_tokens()
    assert await fetched(source) == {"A": "1"}
    assert (double.calls("login"), double.calls("list")) == (2, 3)


async def test_a_missing_right_leads_to_no_new_login(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.forbidden = True
    with pytest.raises(SourceRefused, match="PermissionDenied"):
        await source_of(double).fetch("production")
    assert (double.calls("login"), double.calls("list")) == (1, 1)


async def test_tokens_that_never_work_end_after_one_new_login(double: InfisicalDouble) -> None:
    double.fail_with(faults.api_error(401, "UnauthorizedError", "no"), times=5)
    with pytest.raises(SourceRefused, match="does not accept the access token"):
        await source_of(double).fetch("production")
    assert (double.calls("login"), double.calls("list")) == (2, 2)


async def test_a_refused_login_is_not_repeated_for_300_seconds(
    double: InfisicalDouble, mock_clock: MockClock
) -> None:
    double.secrets[place(double)] = {"A": "1"}
    context = context_for(double, SECRET=canary("wrong-secret"))
    one, other = source_of(double, context), source_of(double, context, secret_path="/x")
    with pytest.raises(SourceRefused, match=r"refused the login \(status 401 .*no further login for 300 s"):
        await one.fetch("production")
    mock_clock.jump(299)
    for source in (one, other, one, other):
        with pytest.raises(SourceRefused, match="no further login for 1 s") as caught:
            await source.fetch("production")
        assert caught.value.retry_after == pytest.approx(1)
    assert double.calls("login") == 1
    assert not double.locked_out
    mock_clock.jump(2)
    with pytest.raises(SourceRefused, match="no further login for 300 s"):
        await one.fetch("production")
    assert double.calls("login") == 2


async def test_corrected_credentials_are_tried_at_once(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    environ = {"ID": double.client_id, "SECRET": canary("wrong-secret")}
    source = source_of(double, SourceContext.from_environ(environ))
    with pytest.raises(SourceRefused):
        await source.fetch("production")
    environ["SECRET"] = double.client_secret
    assert await fetched(source) == {"A": "1"}


async def test_an_outage_at_the_login_is_no_refusal(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.fail_with(faults.too_many_requests(9), on="login")
    source = source_of(double)
    with pytest.raises(SourceDown) as caught:
        await source.fetch("production")
    assert caught.value.retry_after == 9
    assert await fetched(source) == {"A": "1"}


async def test_token_auth(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    environ = {"TOKEN": double.issue_token()}
    source = source_of(
        double, SourceContext.from_environ(environ), auth="token", token=EnvCredential(name="TOKEN")
    )
    assert await fetched(source) == {"A": "1"}
    double.revoke_tokens()
    with pytest.raises(SourceRefused, match="does not accept the token; make a new token"):
        await source.fetch("production")
    environ["TOKEN"] = double.issue_token()
    assert await fetched(source) == {"A": "1"}
    assert double.calls("login") == 0


async def test_oidc_auth(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    source = source_of(
        double,
        context_for(double, JWT=double.jwt),
        auth="oidc",
        identity_id=EnvCredential(name="ID"),
        jwt=EnvCredential(name="JWT"),
    )
    assert await fetched(source) == {"A": "1"}


async def test_a_missing_credential_names_its_variable(double: InfisicalDouble) -> None:
    source = source_of(double, SourceContext.from_environ({"ID": "x"}))
    with pytest.raises(SettingsError, match="the variable SECRET is not set; set SECRET, or SECRET_FILE"):
        await source.fetch("production")
    with pytest.raises(SettingsError, match="auth universal needs client_secret"):
        await source_of(double, client_secret=None).fetch("production")
    assert double.requests == []
