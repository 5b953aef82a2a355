"""Why a job fails; child processes raise it without the queue's database library."""

from __future__ import annotations


class InvalidInput(Exception):
    """The input of the job can't be used; the message says what to change."""


class ServiceFault(Exception):
    """The job failed, and its input isn't the cause."""
