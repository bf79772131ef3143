"""What trueup asks of GitHub: names of secrets, writing them, and dispatching workflows."""
