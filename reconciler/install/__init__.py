"""`trueup node install`: an agent put onto a host over ssh, or nothing changed there."""
