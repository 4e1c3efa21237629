"""Exit statuses of commands whose outcome is one: 0 good, 1 worse or not valid, 2 cannot say.

A wrong usage has a status of its own, 64, since click's 2 would read as an outcome.
"""

import click

GOOD, WORSE, CANNOT_SAY, WRONG_USAGE = 0, 1, 2, 64


class WrongUsage(click.UsageError):
    """A wrong usage, with a status that no outcome has."""

    exit_code = WRONG_USAGE


class Command(click.Command):
    """A command whose options are refused with that status, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; click's own errors get that status."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _with_status(error) from None


class Group(click.Group):
    """A group of such commands; an unknown command, or none, is a wrong usage, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before the command; click's own errors get that status."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _with_status(error) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one gets that status."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise _with_status(error) from None


def _with_status(error: click.UsageError) -> click.UsageError:
    """Return click's own error, whose words name the argument, with that status."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and error.ctx is not None:
        return _NoCommand(error.ctx)
    return WrongUsage(error.format_message(), error.ctx)


class _NoCommand(click.exceptions.NoArgsIsHelpError):
    """No command was named: its help is shown."""

    exit_code = WRONG_USAGE


def shown(text: object) -> str:
    r"""Return text that a terminal only shows: lines stay lines, and what would steer it is hidden.

    >>> shown("a\x1b[31m\nb")
    'a�[31m\nb'
    """
    from fxeval.scorecard.wording import visible

    return "\n".join(str(visible(line)) for line in str(text).split("\n"))


def say_error(error: object) -> None:
    """Print an error; names in it come from files that anybody may have written."""
    click.echo(f"error: {shown(error)}", err=True)
