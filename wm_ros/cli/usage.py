"""What ends a command with exit code 2: it was called in a way that cannot be meant."""

from __future__ import annotations


class UsageError(ValueError):
    """Options that are wrong by themselves, whatever the files hold: said in one line, code 2."""
