"""A real SLURM on this machine: a controller and two node daemons on loopback (make test-slurm)."""
