"""gueststar products: list what a repository holds."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from gueststar.cli.as_reader import as_reader
from gueststar.core.errors import ConfigError


@click.command("products")
@click.argument("repo", type=click.Path())
@click.argument("product", required=False)
@click.option("--night", type=int, help="Survey night, YYYYMMDD.")
@click.option("--detector", type=int, help="Detector id.")
@click.option("--field", type=int, help="Field number (reference products).")
@as_reader("the operator")
@click.option("--json", "is_json", is_flag=True, help="One JSON document instead of a table.")
def command(
    repo: str,
    product: str | None,
    night: int | None,
    detector: int | None,
    field: int | None,
    as_reader: str | None,
    is_json: bool,
) -> None:
    """List the products of type PRODUCT in REPO with their files; without PRODUCT, the types there are."""
    from gueststar.store.products import PRODUCTS
    from gueststar.store.visible import open_as

    if product is None:
        for item in PRODUCTS.values():
            click.echo(f"{item.name:26} {item.meaning}")
        return
    constraints: dict[str, Any] = {"day_obs": night, "detector": detector, "field": field}
    try:
        with open_as(repo, as_reader) as opened:
            found = opened.find(product, **{key: value for key, value in constraints.items() if value is not None})
    except ConfigError as problem:
        click.echo(f"gueststar: {problem}", err=True)
        sys.exit(2)
    rows = [{**_known(asdict(ref.data_id)), "path": str(ref.path), "run": ref.run} for ref in found]
    if is_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for ref in found:
        click.echo(f"{ref.data_id}  {ref.path}")


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
