"""How an exercise looks at an answer: runs it safely, compares, finds the mistake that explains the difference."""
