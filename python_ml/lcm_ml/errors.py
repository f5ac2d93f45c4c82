"""What a user is told when a job cannot go on: one message that names the thing, and the next step."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LcmError(Exception):
    """A job failed for a reason the user can act on. The command line prints it and exits with 1.

    Args:
        message: what is wrong, naming the table, column or file.
        next_step: what to do about it, as a command or a setting where there is one.

    `run_id` is the run that failed, where one had begun; `is_recorded` says that `lcm-ml status` knows of it;
    `is_private` that the message names a user, and must not be logged.
    """

    exit_code = 1
    run_id: str | None = None
    is_recorded = False
    is_private = False

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.next_step}" if self.next_step else self.message


class LockedError(LcmError):
    """Another process holds what is wanted. Nothing failed: the same command works once that one is done."""


class UsageError(LcmError):
    """The command was called wrongly. The command line prints it and exits with 2."""

    exit_code = 2


def from_system(error: OSError) -> LcmError:
    """What the operating system refused, in words that name the path where it told one."""
    named = f"{error.filename}: " if error.filename else ""
    if error.errno in FULL:
        return LcmError(f"{named}the disk is full; what was there is as it was", "free some space and run it again")
    return LcmError(f"{named}{error.strerror or error}", "check that the path exists and can be written")
