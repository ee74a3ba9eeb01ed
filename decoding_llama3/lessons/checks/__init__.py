"""The exercises of the seven parts, a file per part: checks, hints and solutions."""
