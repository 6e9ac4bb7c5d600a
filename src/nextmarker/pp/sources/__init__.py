"""Where cells are that come from elsewhere: one file for each kind of source."""
