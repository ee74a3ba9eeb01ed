"""Solutions, and the checks of graded exercises: an edition for students lacks this folder."""
