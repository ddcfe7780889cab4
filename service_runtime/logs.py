"""Logs as events with fields: `log.info("lease expired", lease_id=…)`. JSON lines, or coloured text on a terminal.

Libraries that log through `logging` come out in the same shape. Values whose name says that they are secret are masked,
as a last line of defence: nobody should log them in the first place.
"""

import logging
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_NAME = re.compile(r"(token|secret|password|authorization|api_key|cookie)$", re.IGNORECASE)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}|\bsk-[\w-]{8,}|\beyJ[\w-]+\.[\w-]+\.[\w-]*")


def configure_logs(*, service: str, level: str = "info", as_json: bool | None = None) -> None:
    """Sets up structlog and `logging` for one process. `as_json` None means: text if standard error is a terminal."""
    if as_json is None:
        as_json = not sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _service_name(service),
        structlog.processors.StackInfoRenderer(),
    ]
    # Tracebacks as text: the structured kind carries local variables, and with them tokens.
    renderer: Processor = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    render: list[Processor] = [structlog.processors.format_exc_info, mask_secrets, renderer]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for noisy in ("httpx", "httpcore", "aiosqlite", "websockets", "uvicorn.access", "alembic"):
        logging.getLogger(noisy).setLevel(max(threshold, logging.WARNING))


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Masks values that are secret by their name, and bearer tokens inside any text."""
    return {key: _masked(key, value) for key, value in event.items()}


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, str | bytes) and value and _SECRET_NAME.search(key):
        return "***"
    if isinstance(value, str):
        return _BEARER.sub(lambda found: f"{found.group(1) or ''}***", value)
    if isinstance(value, dict):
        return {k: _masked(str(k), v) for k, v in value.items()}
    if isinstance(value, list):
        return [_masked(key, item) for item in value]
    return value


def _service_name(service: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return add
