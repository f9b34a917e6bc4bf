"""Rehearsals: contingencies that are made to happen to a survey in operation, and a judgement of how it recovers."""
