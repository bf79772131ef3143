"""`trueup notify test`: a message to the channels of the spec, so that nobody has to wait for a failure."""

from collections.abc import Callable
from secrets import token_hex

from reconciler.errors import SettingsError, TrueupError
from reconciler.exit_codes import ExitCode
from reconciler.kept_notifications import KeptNotification, channel_name
from reconciler.mishaps import line_for_log
from reconciler.notifications.sending import NotSent, address_of, one_at_a_time, send
from reconciler.primary import open_primary
from reconciler.settings import Settings
from reconciler.setup import validate_pushed
from reconciler.spec.model import Credential, EnvCredential, FileCredential, SecretCredential
from reconciler.status.conditions import whole_second


async def try_channels(settings: Settings, place: int | None, say: Callable[[str], None]) -> ExitCode:
    """Send one message to each channel of the pushed spec, or to one by its place, counted from 0.

    Nothing is kept, nothing is told twice, and no lease is needed. Raises SpecInvalid, and SettingsError
    where there is no such channel.
    """
    async with open_primary(settings, exclusive=False) as primary:
        spec = await validate_pushed(settings)
        channels = dict(enumerate(spec.notifications))
        if place is not None and place in channels:
            channels = {place: channels[place]}
        elif place is not None or not channels:
            what = "no channel" if place is None else f"no notifications/{place}"
            raise SettingsError(f"the spec has {what}", hint="docs/spec.md shows `notifications`")
        failed = False
        for at, channel in channels.items():
            where = f"notifications/{at} ({_words(channel.url)})"
            message = KeptNotification(
                id=0,
                key=token_hex(6),
                channel=channel_name(channel.url),
                severity="success",
                title="trueup: a test",
                body=f"this channel is told of: {', '.join(channel.on)}\n"
                f"at {whole_second(primary.now()):%Y-%m-%d %H:%M:%S} UTC",
                trace="",
                at="",
            )
            try:
                address = await address_of(primary.secret_store(spec), channel.url)
                await send(address, message, one_at_a_time())
            except (NotSent, TrueupError) as error:
                failed = True
                say(f"{where}: not sent: {error if isinstance(error, NotSent) else line_for_log(error)}")
            else:
                say(f"{where}: sent, message {message.key}")
    return ExitCode.FAILED if failed else ExitCode.DONE


def _words(channel: Credential) -> str:
    """Where its address is found, as the spec says it."""
    match channel:
        case EnvCredential(name=name):
            return f"env {name}"
        case FileCredential(path=path):
            return f"file {path}"
        case SecretCredential(source=source, key=key):
            return f"secret {source}/{key}"
