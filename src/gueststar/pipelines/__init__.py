"""Thin tasks and the recipes that chain them."""
