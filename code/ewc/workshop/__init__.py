"""What makes a page: records of runs, sequences of tasks, searches, the papers' protocols, drawing, and numbers for the text."""
