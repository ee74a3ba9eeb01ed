"""Research on tiny, an exercise per part: the task is drawn by the learner's name, and silencing judges."""
