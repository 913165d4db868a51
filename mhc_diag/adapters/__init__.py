"""Their model or their parameters -> our matrices; one file per code base."""
