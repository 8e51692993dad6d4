"""A run of many trials on Ray Tune: experiments, workers, early stopping, loggers and the live view.
The only folder that knows Ray, besides study.doctor.ray_cluster, which looks at a cluster through `resources`. Must not
know how a trial trains, which trials are missing, or the command line."""
