"""How much a command says while it works."""

from __future__ import annotations

import argparse
import logging
import sys


def add_loudness(parser: argparse._ActionsContainer) -> None:
    """Enter the flags."""
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more")


def configure_logging(given: argparse.Namespace) -> None:
    """Send what the package logs to standard error, as much as the flags say."""
    level = logging.WARNING if given.quiet else logging.DEBUG if given.verbose else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("onnxprune")
    logger.handlers = [handler]
    logger.setLevel(level)
