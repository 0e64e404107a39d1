"""What every chapter needs: settings, data, compute, checkpoints, results."""
