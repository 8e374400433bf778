"""The page, tables and published numbers."""
