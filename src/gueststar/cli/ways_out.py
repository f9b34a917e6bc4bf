"""Every way out of a survey, and for whose eyes it is. One that is not named here fails the tests."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Eyes(StrEnum):
    """For whom a way out is."""

    READER = "a reader"
    """It asks who reads, and gives what the policy lets him see."""
    OPERATOR = "the operator"
    """It changes the survey or tells of all of it: only whoever owns its files runs it."""
    NOBODY = "nobody"
    """It tells nothing of exposures."""


class WayOut(NamedTuple):
    """One way out."""

    eyes: Eyes
    what: str
    """What leaves, and by what it is held back."""


_R, _O, _N = Eyes.READER, Eyes.OPERATOR, Eyes.NOBODY

COMMANDS: dict[str, WayOut] = {
    "action list": WayOut(_N, "names of actions"),
    "action run": WayOut(_O, "the day's housekeeping, over all exposures"),
    "alarm ack": WayOut(_O, "an alarm: what is wrong with the survey"),
    "alarm check": WayOut(_O, "what is wrong with the survey, to those whom survey.yaml names"),
    "alarm close": WayOut(_O, "an alarm"),
    "alarm list": WayOut(_O, "alarms: they name exposures of all programs"),
    "alarm test": WayOut(_O, "a message to those whom survey.yaml names"),
    "alerts broker start": WayOut(_N, "a broker; on loopback only"),
    "alerts broker status": WayOut(_N, "whether it runs"),
    "alerts broker stop": WayOut(_N, "nothing"),
    "alerts broker user": WayOut(_N, "a login on the broker"),
    "alerts check": WayOut(_O, "counts of all programs"),
    "alerts export": WayOut(_R, "packets: those that may be taken whole"),
    "alerts fields": WayOut(_N, "names and meanings of fields"),
    "alerts import": WayOut(_O, "numbers of packets of other surveys, and why some were refused"),
    "alerts list": WayOut(_R, "candids and names of packets that may be taken"),
    "alerts publish": WayOut(_O, "packets, each to the topic of its night and program; access lists by groups"),
    "alerts refused": WayOut(_O, "files of other surveys, and why they were refused"),
    "alerts release": WayOut(_O, "lets held packets go to their topics"),
    "alerts replay": WayOut(_O, "packets of one stream; refused onto a topic that others may read"),
    "alerts retract": WayOut(_O, "a message on the topic's retractions, with the same access list"),
    "alerts search": WayOut(_R, "fields of packets that may be taken, never the order in which they came"),
    "alerts show": WayOut(_R, "a packet and its cut-outs, if it may be taken"),
    "alerts verify": WayOut(_O, "counts and candids of all programs"),
    "archive begin": WayOut(_O, "nothing"),
    "archive clean": WayOut(_O, "names of files of all exposures"),
    "archive restore": WayOut(_O, "numbers of files"),
    "archive status": WayOut(_O, "counts of all exposures"),
    "archive update": WayOut(_O, "a copy of all, in a folder that only its owner reads"),
    "archive verify": WayOut(_O, "names of files of all exposures"),
    "camera check": WayOut(_N, "findings on files that are given"),
    "camera list": WayOut(_N, "cameras"),
    "camera new": WayOut(_N, "a camera's description"),
    "camera show": WayOut(_N, "a camera's description"),
    "drill": WayOut(_O, "figures of a rehearsal; on a survey's own nights: counts of all programs"),
    "filter add": WayOut(_O, "packets from now on, to a topic that only the filter's owner reads: what he may take"),
    "filter fields": WayOut(_N, "names of fields"),
    "filter list": WayOut(_O, "counts of all programs"),
    "filter pause": WayOut(_O, "nothing"),
    "filter remove": WayOut(_O, "nothing"),
    "filter resume": WayOut(_O, "what `filter add` says"),
    "filter show": WayOut(_O, "counts of all programs"),
    "filter test": WayOut(_R, "counts, values and cut-outs of packets that the owner may take"),
    "forced": WayOut(_R, "fluxes on exposures that may be seen, at places that the reader's streams know"),
    "ingest": WayOut(_O, "what became of files"),
    "init": WayOut(_N, "an empty survey"),
    "inject": WayOut(_O, "completeness over all exposures"),
    "lightcurve": WayOut(_R, "magnitudes of exposures that may be seen, relative to stars on these"),
    "log": WayOut(_O, "lines of the operator and its workers on all exposures; the files are its owner's"),
    "metrics compare": WayOut(_O, "figures over all exposures"),
    "metrics list": WayOut(_O, "figures over all exposures"),
    "metrics measure": WayOut(_O, "figures over all exposures"),
    "metrics show": WayOut(_O, "figures over all exposures"),
    "movers ades": WayOut(_O, "places of moving things on exposures of all programs, whose use is free"),
    "movers orbits": WayOut(_O, "orbits through tracklets of all programs"),
    "movers list": WayOut(_O, "tracklets of all programs"),
    "night expect": WayOut(_O, "what schedules and observing logs expect"),
    "night list": WayOut(_R, "numbers of exposures that may be seen"),
    "night report": WayOut(_R, "the account of exposures that may be seen"),
    "operate": WayOut(_O, "the survey's work"),
    "orbits import": WayOut(_N, "orbits of others"),
    "orbits near": WayOut(_N, "orbits of others"),
    "orbits show": WayOut(_N, "orbits of others"),
    "campaign": WayOut(_O, "nights' work on a batch system"),
    "process": WayOut(_O, "the night's work"),
    "products": WayOut(_R, "paths of products of exposures that may be seen"),
    "refcat from-images": WayOut(_O, "a catalog made of images that are given"),
    "refcat import": WayOut(_N, "catalogs of others"),
    "refcat index": WayOut(_N, "catalogs of others"),
    "refcat show": WayOut(_N, "catalogs of others"),
    "reference": WayOut(_R, "versions and fluxes of references: unrestricted; their epochs as far as they may be seen"),
    "rules check": WayOut(_N, "what is wrong with a file that is given"),
    "rules copy": WayOut(_N, "rules that ship"),
    "rules explain": WayOut(_O, "facts of any exposure, counts of all programs"),
    "rules list": WayOut(_O, "rules, and when each fired"),
    "serve": WayOut(_O, "the addresses of `alerts` and `schemas`, each of which asks who reads"),
    "service": WayOut(_N, "unit files; they name the survey's folders"),
    "simulate": WayOut(_N, "a sky that does not exist"),
    "size": WayOut(_O, "what surveys need; with --measure the mean costs of all exposures of a repository"),
    "status": WayOut(_O, "counts, images and alarms of all programs; its page asks who looks"),
    "streaks list": WayOut(_R, "streaks on exposures that may be seen"),
    "streaks show": WayOut(_R, "a streak and its cut-outs, on an exposure that may be seen"),
    "survey report": WayOut(
        _R, "coverage, depth and alerts of exposures that may be seen; no references, metrics, disk"
    ),
    "user access": WayOut(_O, "who may read which topic"),
    "user add": WayOut(_O, "a user"),
    "user groups": WayOut(_O, "a user's groups"),
    "user list": WayOut(_O, "users, groups, numbers of tokens"),
    "user remove": WayOut(_O, "nothing"),
    "user revoke": WayOut(_O, "nothing"),
    "user token": WayOut(_O, "a token, once"),
    "vet add": WayOut(_N, "a model's version"),
    "vet blend": WayOut(_N, "a model's version"),
    "vet compare": WayOut(_N, "figures on rows that are given"),
    "vet describe": WayOut(_N, "what a model was trained on, as counts"),
    "vet label": WayOut(_O, "labelled detections of all exposures"),
    "vet models": WayOut(_N, "models and their figures"),
    "vet page": WayOut(_R, "detections and cut-outs of exposures that may be seen"),
    "vet rows": WayOut(_O, "labelled detections of all exposures"),
    "vet test": WayOut(_N, "figures on rows that are given"),
    "vet train": WayOut(_N, "a model"),
    "vet use": WayOut(_N, "a model's version"),
    "why": WayOut(_R, "the story of an exposure, alert, file or place, of exposures that may be seen"),
}
"""Commands by name. Those that ask for a reader have the option ``--as``."""

ADDRESSES: dict[str, WayOut] = {
    "alerts /alerts/{candid:int}.avro": WayOut(_R, "a packet, if it may be taken; else as one that never was"),
    "alerts /alerts/{candid:int}.json": WayOut(_R, "the same without its cut-outs"),
    "alerts /alerts/{candid:int}/cutouts/{name}": WayOut(_R, "one of its cut-outs"),
    "schemas /config": WayOut(_N, "how schemas change"),
    "schemas /mode": WayOut(_N, "read-only"),
    "schemas /schemas/ids/{id}": WayOut(_N, "a schema"),
    "schemas /schemas/ids/{id}/schema": WayOut(_N, "a schema"),
    "schemas /schemas/ids/{id}/versions": WayOut(_N, "a schema's versions"),
    "schemas /schemas/types": WayOut(_N, "kinds of schemas"),
    "schemas /subjects": WayOut(_N, "names of schemas"),
    "schemas /subjects/{subject}/versions": WayOut(_N, "a schema's versions"),
    "schemas /subjects/{subject}/versions/{version}": WayOut(_N, "a schema"),
    "schemas /subjects/{subject}/versions/{version}/schema": WayOut(_N, "a schema"),
    "status /": WayOut(_O, "the state of operation: the operator's user over loopback, else a token of its group"),
    "status /facts.json": WayOut(_O, "the same, as values"),
    "status /facts.events": WayOut(_O, "the same, pushed as they change"),
    "status /metrics": WayOut(_O, "figures of it, without names of exposures; over loopback to all of this machine"),
    "status /previews/{exposure:int}/{detector:int}/{kind}.png": WayOut(_O, "small pictures of the last images"),
    "labelling /": WayOut(_R, "the page; the key of its address, or a token of scope label"),
    "labelling /next": WayOut(_R, "a detection of the reader's desk"),
    "labelling /page": WayOut(_R, "numbers, labels and scores of detections of the reader's desk; its nights"),
    "labelling /detections/{dia_source_id:int}": WayOut(_R, "a detection of the reader's desk"),
    "labelling /detections/{dia_source_id:int}/cutouts.png": WayOut(_R, "its cut-outs"),
    "labelling /detections/{dia_source_id:int}/label": WayOut(_R, "counts of labels on the reader's desk"),
    "labelling /undo": WayOut(_R, "a detection of the reader's desk"),
}
"""Addresses of HTTP services: module of `gueststar.services`, and path."""
