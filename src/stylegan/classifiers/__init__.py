"""Training of attribute classifiers, for the metric of linear separability."""
