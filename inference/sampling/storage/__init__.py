"""What sampling keeps: records of draws in memory or on disk, and checkpoints from which a run goes on."""
