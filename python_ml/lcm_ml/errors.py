"""What a user is told when a job cannot go on: one message that names the thing, and the next step."""


class LcmError(Exception):
    """A job failed for a reason the user can act on. The command line prints it and exits with 1.

    Args:
        message: what is wrong, naming the table, column or file.
        next_step: what to do about it, as a command or a setting where there is one.
    """

    exit_code = 1

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.next_step}" if self.next_step else self.message


class UsageError(LcmError):
    """The command was called wrongly. The command line prints it and exits with 2."""

    exit_code = 2
