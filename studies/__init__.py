"""Studies: one YAML file compares personalised federated methods, tuned by Optuna and tracked in MLflow."""
