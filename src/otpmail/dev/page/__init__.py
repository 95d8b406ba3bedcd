"""The files of the inbox's page, as a browser gets them: no build step, and nothing from elsewhere."""
