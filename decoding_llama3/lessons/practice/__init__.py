"""How an exercise looks at an answer: it runs it safely, compares, and finds the mistake that explains the difference."""
