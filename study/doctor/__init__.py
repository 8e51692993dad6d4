"""What a machine or a cluster lacks for a study: one line per check, with its cure. Also the watch for a spot notice.
Must not change anything but what `gnc prepare` is asked to make. Ray is known to `ray_cluster` alone, through
study.tuning.resources; study.tuning must not import this folder."""
