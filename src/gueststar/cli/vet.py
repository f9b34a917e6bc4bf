"""`gueststar vet`: train and describe the reliability model."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group()
def command() -> None:
    """Train and describe the reliability model of detections."""


@command.command()
@click.argument("rows", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("model", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--trees", type=click.IntRange(1), help="Number of trees.")
def train(rows: tuple[Path, ...], model: Path, trees: int | None) -> None:
    """Train MODEL on Parquet files ROWS of dia_source columns and a column is_real."""
    from dataclasses import replace

    from gueststar.formats.parquet import read_catalog
    from gueststar.formats.reliability_model import write_reliability_model
    from gueststar.model.catalog import concatenate
    from gueststar.pipelines.difference.train import LABELLED_SOURCE, TrainingConfig, TrainReliability

    labelled = concatenate([read_catalog(path, LABELLED_SOURCE) for path in rows])
    config = TrainingConfig()
    if trees:
        config = replace(config, boosting=replace(config.boosting, n_trees=trees))
    made = TrainReliability(config).run(labelled)
    write_reliability_model(model, made)
    click.echo(f"{made.version}: {json.dumps(made.training['held_out']['at_threshold'])}")


@command.command()
@click.argument("model", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def describe(model: Path | None) -> None:
    """Say what MODEL (default: the one that ships) was trained on and how good it is."""
    from gueststar.formats.reliability_model import default_reliability_model, read_reliability_model

    found = read_reliability_model(model) if model else default_reliability_model()
    click.echo(json.dumps({"version": found.version, "features": found.feature_names, **found.training}, indent=1))
