"""The ``fxeval`` command, for everything that is not a test run. Suites are run by pytest.

Importing this package loads no torch.
"""

import click

from fxeval import __version__
from fxeval.cli.ab import ab
from fxeval.cli.agreement import agreement
from fxeval.cli.baseline import baseline
from fxeval.cli.check_model import check_model
from fxeval.cli.compare import compare
from fxeval.cli.convert import convert
from fxeval.cli.data import data
from fxeval.cli.listing import list_
from fxeval.cli.report import report
from fxeval.cli.schema import schema
from fxeval.cli.selfcheck import selfcheck
from fxeval.cli.store import store
from fxeval.cli.trend import trend
from fxeval.cli.usage import Group


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(__version__, prog_name="fxeval")
def main() -> None:
    """Evaluation of explanations of face-recognition models.

    Suites are run by pytest: pytest suites/quickstart.yaml
    """


for command in (
    ab,
    agreement,
    baseline,
    check_model,
    compare,
    convert,
    data,
    list_,
    report,
    schema,
    selfcheck,
    store,
    trend,
):
    main.add_command(command)
