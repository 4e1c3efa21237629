"""``fxeval schema``: prints the formats as JSON Schema, for editors and readers of records."""

import json
from collections.abc import Mapping
from typing import Any

import click


@click.command("schema")
@click.argument("what", type=click.Choice(["suite", "record", "row"]), default="suite")
def schema(what: str) -> None:
    r"""Print the JSON Schema of a suite, of a record, or of a row of a record.

    An editor completes and explains a suite whose first line names its schema:

    \b
    # yaml-language-server: $schema=suite.schema.json
    """
    click.echo(json.dumps(_schema_of(what), indent=2, ensure_ascii=False, allow_nan=False))


def _schema_of(what: str) -> Mapping[str, Any]:
    if what == "suite":
        from fxeval.suite.schema import suite_schema

        return suite_schema()
    from fxeval.records.schema import Record, Row, json_schema

    return json_schema(Row if what == "row" else Record)
