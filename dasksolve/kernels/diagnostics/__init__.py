"""What is said of a solution: condition, norms, residuals, verdicts."""
