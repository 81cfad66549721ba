"""What trains and evaluates networks: LightningModules, with their losses, optimizers and schedules."""
