"""The `gueststar` command: one noun or verb a file, imported when it is called."""

from __future__ import annotations

import importlib
import sys

import click

from gueststar import __version__
from gueststar.core.errors import ConfigError, DataError, GueststarError

COMMANDS = {
    "action": "What rules run, run by hand.",
    "alarm": "What is wrong with the survey, and who takes care of it.",
    "alerts": "Find, show and export alert packets.",
    "archive": "The second copy of raw files and products.",
    "camera": "Draft, check and show camera descriptions.",
    "campaign": "Nights as workflows of a batch system.",
    "drill": "Rehearse a contingency and judge the recovery.",
    "filter": "Conditions of users over the alerts, each with a topic of its own.",
    "forced": "Fluxes at given places on the science images, detected or not.",
    "ingest": "Take raw exposures (or your own products) into a repository.",
    "init": "Make a survey repository.",
    "inject": "Put artificial sources into processed images: completeness and flux errors.",
    "lightcurve": "The light curve at a place.",
    "log": "What the operator and its workers wrote down.",
    "metrics": "Named metrics of the survey: values, history, versions.",
    "movers": "What moved in a night: tracklets, and their astrometry for the Minor Planet Center.",
    "night": "The night's account.",
    "operate": "The operator: run the survey by itself.",
    "orbits": "Orbits of known Solar-System bodies.",
    "process": "From raw exposures to alerts.",
    "products": "List products with their files.",
    "refcat": "Local reference catalogs.",
    "reference": "The versions of the references at a place, and their flux there.",
    "rules": "What triggers what: the rules by which a survey is operated.",
    "serve": "Alerts, cut-outs and schemas over HTTP.",
    "service": "Unit files of systemd for a survey.",
    "simulate": "Make nights of raw exposures, with truth.",
    "size": "How many cores, disks and how much network a survey needs.",
    "status": "How the survey fares now: in the terminal, as a page, as figures.",
    "streaks": "Streaks of satellites and of fast asteroids.",
    "survey": "Weeks and the whole survey: coverage, depth, trends.",
    "user": "Who may see what is not public, and with which tokens.",
    "vet": "Train and inspect the reliability score.",
    "why": "The whole causal story of one thing.",
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command runs (imports cost seconds)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"gueststar.cli.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.command(cls=LazyGroup)
@click.version_option(__version__, prog_name="gueststar")
def group() -> None:
    """gueststar: a science data system for time-domain sky surveys, in a box."""


def main() -> None:
    """Run the command line; expected errors are one line on stderr and an exit status.

    Status 1: data that could not be used or an account that does not balance; 2: something a person
    must change; 3: the world failed, the same command may succeed later.
    """
    try:
        group.main(prog_name="gueststar", standalone_mode=True)
    except GueststarError as error:
        click.echo(f"gueststar: {error}", err=True)
        sys.exit(1 if isinstance(error, DataError) else 2 if isinstance(error, ConfigError) else 3)
