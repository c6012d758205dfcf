"""The `goconductor` command.

Exit codes: 0 done; 1 refused or failed; 2 the command line is not understood; 3 no sidecar
answered in time (`probe`: no service); 4 the workflow that was waited for did not complete.
"""

from __future__ import annotations

import click

from sidecar.cli import (
    bulk,
    debt,
    definitions,
    operation,
    operators,
    reruns,
    services,
    versions,
    workflows,
)
from sidecar.cli.check import check
from sidecar.cli.failure import Failure
from sidecar.cli.probe import probe
from sidecar.cli.simulate import simulate
from sidecar.errors import GoConductorError


class Commands(click.Group):
    """The group of all commands: our own errors are told in a sentence, without a trace."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except GoConductorError as error:
            raise Failure(error.message) from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands in the order in which they are needed."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Sagas across services: all done, or all undone.

    \b
    Try it:    goconductor demo
    Exit code: 0 done, 1 refused or failed, 2 wrong usage, 3 no sidecar answered,
               4 the workflow waited for did not complete
    """  # noqa: D301 - click reads a real backspace as: keep these lines as they are


for _command in (
    operation.demo,
    operation.sidecar,
    operation.migrate,
    check,
    simulate,
    probe,
    definitions.apply,
    versions.diff,
    versions.versions,
    versions.deprecate,
    versions.retire,
    versions.restore,
    versions.delete,
    workflows.start,
    workflows.list_,
    workflows.show,
    workflows.events,
    workflows.items,
    operators.cancel,
    operators.pause,
    operators.resume,
    operators.retry,
    operators.signal,
    operators.skip,
    operators.resolve,
    operators.terminate,
    reruns.rerun,
    bulk.bulk,
    debt.debt,
    services.services,
    operation.version,
):
    main.add_command(_command)


if __name__ == "__main__":
    main()
