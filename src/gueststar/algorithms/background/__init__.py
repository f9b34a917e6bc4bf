"""The sky under the sources."""
