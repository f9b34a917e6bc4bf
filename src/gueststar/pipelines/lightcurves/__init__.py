"""Light curves from the catalogs of many visits."""
