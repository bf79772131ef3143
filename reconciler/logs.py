"""Logs: to standard error, as text or JSON, with everything secret masked on the way out.

Masking here is a last net. Code passes no secret to a log in the first place; values are held as
`Secret`, which shows as `***`, and a child's output is masked where it is captured.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from reconciler.secrets.values import MASK, Secret

Mask = Callable[[str], str]

QUIET, NORMAL, VERBOSE = -1, 0, 1
"""`-q`, nothing, `-v`."""

NOISY = (
    "apprise",
    "asyncio",
    "botocore",
    "boto3",
    "git",
    "httpcore",
    "httpx",
    "hypercorn",
    "invoke",
    "oauthlib",
    "requests",
    "requests_oauthlib",
    "urllib3",
)
"""Other people's loggers: only warnings, at any verbosity. Their debug lines hold headers and URLs."""

MAX_DEPTH = 8
"""Levels of nested values that are looked through for secrets; what lies deeper is left out."""


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for one part, named as its module; `log.info("what happened", resource="services/x")`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def configure_logging(
    *,
    verbosity: int = NORMAL,
    log_format: Literal["text", "json"] = "text",
    mask: Mask = str,
    stream: TextIO | None = None,
) -> None:
    """Send all logs of the process, also those of libraries, to `stream` (standard error).

    `mask` gets every text before and after it is formatted; it may learn new secrets while the process
    runs. Call it again to change anything.
    """
    out = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.StackInfoRenderer(),
        _Redact(mask),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream)
    handler.setFormatter(
        _MaskedFormatter(
            mask,
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(log_format, colours=out.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler.formatter, _MaskedFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel({QUIET: logging.WARNING, NORMAL: logging.INFO}.get(max(QUIET, verbosity), logging.DEBUG))
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


class _Redact:
    """Masks every text in an event, shows every other object by its own text, and escapes control
    characters, so that a value cannot forge a line of the log."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {
            # Keys with an underscore are structlog's own; a traceback has lines by nature.
            key: value
            if key.startswith("_")
            else self._text(str(value), keep="\n\t")
            if key in ("exception", "stack")
            else self._clean(value, 0)
            for key, value in event.items()
        }

    def _clean(self, value: object, depth: int) -> Any:
        match value:
            case None | bool() | int() | float():
                return value
            case Secret():
                return MASK
            case str():
                return self._text(value)
            case _ if depth == MAX_DEPTH:
                return "…"
            case Mapping():
                return {self._text(str(key)): self._clean(inner, depth + 1) for key, inner in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._clean(inner, depth + 1) for inner in value]
            case bytes() | bytearray() | memoryview():
                return f"<{len(value)} bytes>"
        return self._text(str(value))

    def _text(self, text: str, keep: str = "") -> str:
        return printable(self._mask(text), keep=keep)


class _Handler(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._follows = stream is None

    def emit(self, record: logging.LogRecord) -> None:
        if self._follows:
            # Whatever it is by now: a bar of progress takes its place, to keep lines out of the bar.
            self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A line that cannot be written is lost: logging's own way prints its unmasked arguments."""


class _MaskedFormatter(structlog.stdlib.ProcessorFormatter):
    """Masks the finished line once more, whatever a renderer has put together."""

    def __init__(self, mask: Mask, **options: Any) -> None:
        super().__init__(**options)
        self._final_mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return self._final_mask(super().format(record))


def _renderer(log_format: Literal["text", "json"], *, colours: bool) -> Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer(sort_keys=True, ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(
        colors=colours,
        pad_event_to=0,
        # The pretty ones print the values of local variables.
        exception_formatter=structlog.dev.plain_traceback,
    )


def printable(text: str, *, keep: str = "") -> str:
    """`text` with line feeds, control characters, bidi marks and the like escaped, save those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape", "replace").decode() for c in text
    )
