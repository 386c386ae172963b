"""What people look at after a simulation: a page, a picture and tables, all from the dictionary of report.json."""
