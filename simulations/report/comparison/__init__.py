"""What people look at after a comparison: a page, pictures and tables, all from the dictionary of summary.json."""
