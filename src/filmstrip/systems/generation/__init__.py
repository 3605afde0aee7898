"""Making video: priors over codes, and models that predict frames."""
