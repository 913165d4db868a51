"""What a training run leaves on disk, and how to read it again; nothing here knows a model."""
