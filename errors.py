"""The error for what a user can get wrong, and the words that every floor needs to say it."""


class UserError(ValueError):
    """A mistake of the user's, in one sentence: the value, the reason, the fix.

    The command line prints it and exits with status 1. Any other exception is a bug and keeps its traceback.
    """


def pluralize(number: int, noun: str) -> str:
    """A number and its noun: "1 image", "2,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def check_at_least(least: float, **values: float | None) -> None:
    """Raise UserError for the first value that is smaller than the least one allowed; None is not looked at."""
    for name, value in values.items():
        if value is not None and not value >= least:  # NaN is refused too
            raise UserError(f"{name} is {value}: it must be at least {least}.")


def check_probability(**values: float) -> None:
    """Raise UserError for the first value that is not in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise UserError(f"{name} is {value}: it must be in [0, 1).")
