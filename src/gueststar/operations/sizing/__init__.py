"""How many cores, how much memory, disk and network a survey needs, from what was measured."""
