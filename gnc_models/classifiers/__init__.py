"""Where classifier rows come from: learned, class means or a fixed code. Does not know losses or networks."""
