"""What a running primary can be watched by: counters and gauges in Prometheus' form."""
