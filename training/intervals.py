"""What every 95% interval of training reaches to."""

Z95 = 1.959964  # the normal quantile of 97.5%
