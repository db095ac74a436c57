"""The error for what a user can get wrong, and the words that every floor needs to say it."""


class UserError(ValueError):
    """A mistake of the user's, in one sentence: the value, the reason, the fix.

    The command line prints it and exits with status 1. Any other exception is a bug and keeps its traceback.
    """


def pluralize(number: int, noun: str) -> str:
    """A number and its noun: "1 image", "2,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
