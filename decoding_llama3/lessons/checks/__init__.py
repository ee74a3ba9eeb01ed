"""The exercises of the seven parts, a file a part: checks, hints and solutions."""
