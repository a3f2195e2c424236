"""The experiments, figures and small worlds of each chapter, in a folder named as its page."""
