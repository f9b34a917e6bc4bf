"""Imported by the process whose forks are workers: the code of units and its kernels are read then, for all of them."""

from __future__ import annotations

import importlib

from gueststar.pipelines.engine.kernels import read_kernels
from gueststar.pipelines.engine.on_worker import UNITS

for _module in UNITS:
    importlib.import_module(_module)
N_KERNELS = read_kernels()
"""How many kernels were read."""
