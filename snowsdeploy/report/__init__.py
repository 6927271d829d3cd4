"""Report to JSON and Markdown."""
