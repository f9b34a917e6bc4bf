"""A night from raw exposures to alerts: recipes, work items, engine, runner."""
