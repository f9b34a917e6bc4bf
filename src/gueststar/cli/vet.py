"""`gueststar vet`: train, test, choose and describe reliability models, and label detections for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gueststar.cli.as_reader import as_reader

ROWS = click.argument("rows", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group()
def command() -> None:
    """Train, test, choose and describe reliability models, and label detections for them."""


@command.command()
@ROWS
@click.argument("model", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--trees", type=click.IntRange(1), help="Number of trees.")
@click.option("--epochs", type=click.IntRange(1), help="How often the network is shown every row.")
@click.option(
    "--judged-fifths", type=click.IntRange(1, 5), default=1, show_default=True,
    help="Fifths of the images that judge a network trained without them; 5 trains six times.",
)  # fmt: skip
@click.option(
    "--noise-counts", type=click.IntRange(1), default=4, show_default=True,
    help="How often each peak of noise counts: by how much more has changed where the rows are from than on skies.",
)  # fmt: skip
@click.option("--name", default="", help="First part of the version's name.")
@click.option("--note", default="", help="What the rows are, for `describe`.")
def train(
    rows: tuple[Path, ...], model: Path, trees: int | None, epochs: int | None, judged_fifths: int, noise_counts: int,
    name: str, note: str,
) -> None:  # fmt: skip
    """Train MODEL (.json, its network .onnx beside it) on labelled detections ROWS.

    ROWS are files of `label` and `rows`, or Parquet files of dia_source columns and a column is_real; without
    cut-outs in all of them the model knows features only.
    """
    from dataclasses import replace

    from gueststar.formats.labelled_detections import read_labelled
    from gueststar.formats.reliability_model import write_reliability_model
    from gueststar.model.labels import joined
    from gueststar.pipelines.difference.train import TrainingConfig, TrainReliability

    config = TrainingConfig(judged_fifths=judged_fifths, noise_counts=noise_counts, name=name, note=note)
    if trees:
        config = replace(config, boosting=replace(config.boosting, n_trees=trees))
    if epochs:
        config = replace(config, network=replace(config.network, n_epochs=epochs))
    made = TrainReliability(config).run(joined([read_labelled(path) for path in rows]))
    write_reliability_model(model, made)
    click.echo(f"{made.version}: {json.dumps(made.training['held_out']['at_threshold'])}")


@command.command()
@ROWS
@click.option("--model", default="", help="Path of a model, or a version of --repo. Default: what ships.")
@click.option("--repo", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Survey with models.")
def test(rows: tuple[Path, ...], model: str, repo: Path | None) -> None:
    """Say how well a model tells labelled detections ROWS apart, which it must not have been trained on."""
    from gueststar.formats.labelled_detections import read_labelled
    from gueststar.model.labels import joined
    from gueststar.operations.reliability import model_named
    from gueststar.pipelines.difference.train import measure_reliability

    found = model_named(model, repo)
    measured = measure_reliability(found, joined([read_labelled(path) for path in rows]))
    click.echo(json.dumps({"version": found.version, **measured}, indent=1))


@command.command()
@click.argument("one")
@click.argument("other")
@ROWS
@click.option("--repo", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Survey with models.")
def compare(one: str, other: str, rows: tuple[Path, ...], repo: Path | None) -> None:
    """Compare models ONE and OTHER (paths, versions of --repo, or `shipped`) on labelled detections ROWS."""
    from gueststar.formats.labelled_detections import read_labelled
    from gueststar.model.labels import joined
    from gueststar.operations.reliability import comparison_lines, model_named

    labelled = joined([read_labelled(path) for path in rows])
    for line in comparison_lines(model_named(one, repo), model_named(other, repo), labelled):
        click.echo(line)


@command.command()
@click.argument("one", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("other", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def blend(one: Path, other: Path, out: Path) -> None:
    """Write OUT, a model whose trees are the mean of those of ONE and OTHER; all else is that of ONE."""
    from gueststar.algorithms.vetting.score import blended
    from gueststar.formats.reliability_model import read_reliability_model, write_reliability_model

    made = blended(read_reliability_model(one), read_reliability_model(other))
    write_reliability_model(out, made)
    click.echo(made.version)


@command.command()
@REPO
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--sources", default=50, show_default=True, type=click.IntRange(1), help="Sources put into each image.")
@click.option("--artefacts", type=click.IntRange(1), help="Most artefacts that are kept of an image, drawn at random.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
def label(repo: Path, out: Path, sources: int, artefacts: int | None, seed: int) -> None:
    """Put artificial sources into REPO's science images, compare them anew, and write labelled detections to OUT.

    The file serves `train` and `test`. REPO is not changed.
    """
    from dataclasses import replace

    from gueststar.formats.labelled_detections import write_labelled
    from gueststar.model.labels import joined
    from gueststar.pipelines.injection.place import LABELLING
    from gueststar.pipelines.night.labelled import label_survey

    images = []
    for image in label_survey(repo, config=replace(LABELLING, n=sources), seed=seed, most_artefacts=artefacts):
        images.append(image.labelled)
        n_real = int(image.labelled.is_real.sum())
        click.echo(
            f"{image.visit} {image.detector}: {n_real} detections of {image.n_injected} sources, "
            f"{image.labelled.rows.n_rows - n_real} of nothing put in"
        )
    write_labelled(out, joined(images))


@command.command()
@REPO
@click.option("--port", default=8077, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--person", default="", help="Who labels. Default: the user's name.")
@as_reader("the operator")
def page(repo: Path, port: int, person: str, as_reader: str | None) -> None:
    """Serve REPO's labelling page to a browser on this machine, until it is interrupted.

    Detections are shown with their cut-outs and facts, those first that the model is least sure of; keys label them.
    """
    import getpass

    from gueststar.services.labelling import serve_labelling

    serve_labelling(repo, port=port, person=person or as_reader or getpass.getuser(), tell=click.echo, reader=as_reader)


@command.command()
@REPO
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def rows(repo: Path, out: Path) -> None:
    """Write what people labelled in REPO as labelled detections to OUT, for `train` and `test`."""
    from gueststar.formats.labelled_detections import write_labelled
    from gueststar.operations.labelling import labelled_by_people

    labelled = labelled_by_people(repo)
    write_labelled(out, labelled)
    click.echo(f"{labelled.rows.n_rows} detections, {int(labelled.is_real.sum())} real")


@command.command()
@REPO
def models(repo: Path) -> None:
    """List REPO's reliability models with their figures; the one in use is marked."""
    from gueststar.operations.reliability import model_lines

    for line in model_lines(repo):
        click.echo(line)


@command.command()
@REPO
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def add(repo: Path, model: Path) -> None:
    """Add MODEL, which `train` wrote, to REPO's models; it is not used before `use`."""
    from gueststar.formats.reliability_model import read_reliability_model
    from gueststar.store.reliability_models import ReliabilityModels

    found = read_reliability_model(model)
    ReliabilityModels(repo).add(found)
    click.echo(found.version)


@command.command()
@REPO
@click.argument("version")
@click.option("--person", default="", help="Who decides. Default: the user's name.")
def use(repo: Path, version: str, person: str) -> None:
    """Score REPO's detections with model VERSION from now on; an earlier version may be taken back."""
    import getpass

    from gueststar.store.reliability_models import ReliabilityModels

    known = ReliabilityModels(repo)
    known.use(version, person=person or getpass.getuser())
    click.echo(f"{version} is in use")


@command.command()
@click.argument("model", default="")
@click.option("--repo", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Survey with models.")
def describe(model: str, repo: Path | None) -> None:
    """Say what MODEL (default: the one that ships) was trained on and how good it is."""
    from gueststar.operations.reliability import model_named

    found = model_named(model, repo)
    card: dict[str, Any] = {name: value for name, value in found.training.items() if name != "distribution"}
    told = {"version": found.version, "network": found.network_version, "features": found.feature_names, **card}
    click.echo(json.dumps(told, indent=1))
