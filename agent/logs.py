"""The agent's log: on stderr, readable on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import json
import logging
import sys
from typing import TextIO

from agent.text import printable


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} "
        text += printable(record.getMessage(), 4096)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def log_to(stream: TextIO = sys.stderr, *, debug: bool = False) -> None:
    """Send the log of this process to a stream."""
    target = logging.StreamHandler(stream)
    target.setFormatter(_Plain() if stream.isatty() else _Json())
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[target], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
