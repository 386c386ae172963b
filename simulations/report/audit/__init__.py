"""What people look at after an audit: a page and tables, all from the dictionary of audit.json."""
