"""The report as an HTML file: its sections, their pictures and tables, and the template."""
