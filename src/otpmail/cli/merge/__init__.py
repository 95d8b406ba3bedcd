"""A mail merge: one mail for each row of a CSV file, from a template."""
