"""`gueststar vet`: train, test and describe the reliability model."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group()
def command() -> None:
    """Train, test and describe the reliability model of detections."""


@command.command()
@click.argument("rows", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("model", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--trees", type=click.IntRange(1), help="Number of trees.")
@click.option("--note", default="", help="What the rows are, for `describe`.")
def train(rows: tuple[Path, ...], model: Path, trees: int | None, note: str) -> None:
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
    made = TrainReliability(replace(config, note=note)).run(labelled)
    write_reliability_model(model, made)
    click.echo(f"{made.version}: {json.dumps(made.training['held_out']['at_threshold'])}")


@command.command()
@click.argument("rows", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Default: what ships.")
def test(rows: tuple[Path, ...], model: Path | None) -> None:
    """Say how well a model tells labelled detections ROWS apart, which it must not have been trained on."""
    from gueststar.formats.parquet import read_catalog
    from gueststar.formats.reliability_model import default_reliability_model, read_reliability_model
    from gueststar.model.catalog import concatenate
    from gueststar.pipelines.difference.train import LABELLED_SOURCE, measure_reliability

    labelled = concatenate([read_catalog(path, LABELLED_SOURCE) for path in rows])
    found = read_reliability_model(model) if model else default_reliability_model()
    click.echo(json.dumps({"version": found.version, **measure_reliability(found, labelled)}, indent=1))


@command.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--sources", default=50, show_default=True, type=click.IntRange(1), help="Sources put into each image.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
def label(repo: Path, out: Path, sources: int, seed: int) -> None:
    """Put artificial sources into REPO's science images, compare them anew, and write labelled detections to OUT.

    The file serves `train` and `test`. REPO is not changed.
    """
    from dataclasses import replace

    from gueststar.formats.parquet import write_catalog
    from gueststar.model.catalog import concatenate
    from gueststar.pipelines.injection.place import LABELLING
    from gueststar.pipelines.night.labelled import label_survey

    images = []
    for image in label_survey(repo, config=replace(LABELLING, n=sources), seed=seed):
        images.append(image.rows)
        n_real = int(image.rows["is_real"].sum())
        click.echo(
            f"{image.visit} {image.detector}: {n_real} detections of {image.n_injected} sources, "
            f"{image.rows.n_rows - n_real} of nothing put in"
        )
    write_catalog(out, concatenate(images), {})


@command.command()
@click.argument("model", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def describe(model: Path | None) -> None:
    """Say what MODEL (default: the one that ships) was trained on and how good it is."""
    from gueststar.formats.reliability_model import default_reliability_model, read_reliability_model

    found = read_reliability_model(model) if model else default_reliability_model()
    click.echo(json.dumps({"version": found.version, "features": found.feature_names, **found.training}, indent=1))
